"""How the variance is spread over directions: eigenvalues of the covariance of one draw."""

from typing import NamedTuple

import numpy as np

FULL = 256
"""Coordinates up to which the whole covariance is accumulated."""


class Spectrum(NamedTuple):
    """Of one estimator."""

    eigenvalues: np.ndarray
    """From the largest down."""
    rank: float
    r"""$(\\mathrm{tr}\\, C)^2 / \\mathrm{tr}\\, C^2$: how many directions share the variance, were they equal."""


def of_covariance(covariance: np.ndarray, draws: int) -> Spectrum:
    """From all its entries; `draws` is what it was estimated from, which adds to the trace of its square."""
    if not np.isfinite(covariance).all():
        return Spectrum(np.full(len(covariance), np.nan), np.nan)
    trace = np.trace(covariance)
    # Unbiased for normal draws (Z. Bai and H. Saranadasa, Statistica Sinica 6, 1996).
    f = draws - 1
    square = f**2 / ((f + 2) * max(f - 1, 1)) * (np.sum(covariance**2) - trace**2 / f)
    return Spectrum(np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0), _ratio(trace, square))


def of_draws(draws: np.ndarray) -> Spectrum:
    """From few draws `(m, d)` of many coordinates: `m - 1` eigenvalues, the largest of them too large."""
    if not np.isfinite(draws).all():
        return Spectrum(np.full(len(draws) - 1, np.nan), np.nan)
    centred = draws - draws.mean(axis=0)
    products, f = centred @ centred.T, len(draws) - 1
    trace = np.trace(products) / f
    square = f**2 / ((f + 2) * max(f - 1, 1)) * (np.sum(products**2) / f**2 - trace**2 / f)
    return Spectrum(np.maximum(np.linalg.eigvalsh(products / f)[::-1][:f], 0), _ratio(trace, square))


def _ratio(trace: float, square: float) -> float:
    return float(trace**2 / square) if square > 0 else np.nan
