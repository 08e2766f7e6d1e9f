"""Do the weights make up for the capacities? The mean of w 1(z = j) against p, for every datapoint and expert."""

from typing import NamedTuple

import numpy as np
from scipy import stats

_ROUNDINGS = 32  # of a probability near 1


class Marginals(NamedTuple):
    """`(n, k)` arrays, but for the limit."""

    mean: np.ndarray
    error: np.ndarray
    """Standard error of the mean."""
    z: np.ndarray
    limit: float


def marginals(
    first: np.ndarray, second: np.ndarray, p: np.ndarray, draws: int, rate: float, eps: float, least: float = 1.0
) -> Marginals:
    r"""Bonferroni over all pairs of a datapoint and an expert.

    A pair that is hardly ever drawn says little about its own variance. Without bias that of $w 1(z = j)$ is
    $p_{ij} \bar w - p_{ij}^2$, with $\bar w$ the mean weight of those drawn, each counted by its weight; it is taken
    from all datapoints of the expert, at `least` so much, and the larger of the two variances counts.
    """
    mean = first / draws
    variance = np.maximum(second / draws - mean**2, 0) * draws / max(draws - 1, 1)
    total = first.sum(axis=0)
    typical = np.where(total > 0, second.sum(axis=0) / np.where(total > 0, total, 1), 1)
    at_least = np.maximum(p * np.maximum(typical, least) - p**2, 0)
    error = np.sqrt(np.maximum(variance, at_least) / draws)
    excess = np.maximum(np.abs(mean - p) - _ROUNDINGS * eps, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(excess > 0, np.sign(mean - p) * excess / error, 0.0)
    z = np.where(np.isfinite(mean), z, np.nan)
    return Marginals(mean, np.sqrt(variance / draws), z, float(stats.t.isf(rate / (2 * p.size), max(draws - 1, 1))))
