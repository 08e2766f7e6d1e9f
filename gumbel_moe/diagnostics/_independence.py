"""Draws of independent keys are independent: whether they look so."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from arviz_stats import ess as arviz_ess  # pyright: ignore[reportPrivateImportUsage]
from arviz_stats import rhat  # pyright: ignore[reportPrivateImportUsage]

_LAGS = 20
# Far from what independent draws give: of 3,000 series of 100 to 8,000 normal draws the worst had
# log(ess / total) = -12 / sqrt(total) and r-hat = 1 + 3.6 / draws.
_ESS, _ESS_SPREAD = 0.5, 35.0
_R_HAT, _R_HAT_DRAWS = 0.01, 20.0


class Independence(NamedTuple):
    """By series, `nan` where a series is constant or too rare to judge."""

    ess: np.ndarray
    """`(series,)`: effective number of draws."""
    r_hat: np.ndarray
    """`(series,)`."""
    distinct: int
    """Different draws among all."""
    reasons: tuple[str, ...]
    """Why the draws cannot be independent, if they cannot."""


def look(tables: Sequence[np.ndarray], judged: np.ndarray) -> Independence:
    """Tables `(chains, draws, series)`, and which of all their series vary enough."""
    chains, draws = tables[0].shape[:2]
    ess, r_hat = np.full(len(judged), np.nan), np.full(len(judged), np.nan)
    every = (table[..., column] for table in tables for column in range(table.shape[2]))
    # One by one: all of them in double precision would take more room than the draws themselves.
    for place, series in enumerate(every):
        values = series.astype(np.float64)
        if judged[place] and np.isfinite(values).all() and np.ptp(values) > 0:
            ess[place] = arviz_ess(values, chain_axis=0, draw_axis=1)
            if chains > 1 and draws >= 8:
                r_hat[place] = _r_hat(values)
    reasons = []
    total = chains * draws
    fewest, worst = np.nanmin(ess, initial=total), np.nanmax(r_hat, initial=1.0)
    if fewest < total * min(_ESS, np.exp(-_ESS_SPREAD / np.sqrt(total))):
        reasons.append(f"effective sample size {fewest:.0f} of {total} independent draws: is a key reused?")
    if worst > 1 + max(_R_HAT, _R_HAT_DRAWS / draws):
        reasons.append(f"the chains disagree, r-hat is {worst:.3f}: does the estimator keep a state?")
    labels = _labels(tables)
    reasons.extend(_repeats(labels))
    return Independence(ess, r_hat, len(np.unique(labels)), tuple(reasons))


def _r_hat(values: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):  # a series that is nearly always one value
        return float(rhat(values, chain_axis=0, draw_axis=1))


def _labels(tables: Sequence[np.ndarray]) -> np.ndarray:
    """`(chains, draws)`: equal where all bits of two draws are; a hash of 64 bits."""
    rng = np.random.default_rng(0)
    labels = np.zeros(tables[0].shape[:2], np.uint64)
    for table in tables:
        words = np.ascontiguousarray(table).view(np.uint32)
        for column in range(words.shape[2]):
            odd = 2 * rng.integers(0, 2**63, dtype=np.uint64) + 1
            labels += (words[..., column].astype(np.uint64) + np.uint64(1)) * np.uint64(odd)
    return labels


def _repeats(labels: np.ndarray) -> list[str]:
    """Draws that equal those at a fixed distance far more often than any two draws are equal."""
    chains, draws = labels.shape
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    total = counts.sum()
    chance = float(np.sum(counts * (counts - 1)) / (total * (total - 1)))

    def too_many(equal: np.ndarray) -> bool:
        return equal.sum() > equal.size * chance + 10 * np.sqrt(equal.size * chance) + 10

    for first in range(chains):
        for second in range(first + 1, chains):
            if too_many(labels[first] == labels[second]):
                return [f"chain {second} repeats the draws of chain {first}: is a key reused?"]
    for lag in range(1, min(_LAGS, draws - 1) + 1):
        if too_many(labels[:, lag:] == labels[:, :-lag]):
            return [f"draws repeat those {lag} before them: is a key reused?"]
    return []
