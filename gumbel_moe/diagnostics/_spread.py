"""All coordinates together: a bias too small to be seen in any of them, but spread over many."""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from gumbel_moe.diagnostics._coordinate_tests import POWER, rare, reach, rounding
from gumbel_moe.diagnostics._layout import Layout
from gumbel_moe.diagnostics._moments import Moments


class Direction(NamedTuple):
    """What half of the draws say about where a bias would lie."""

    vector: np.ndarray
    """`(size,)`: mean deviation over variance, scaled such that independent coordinates give it variance 1."""
    allowance: float
    """How far rounding alone could move the projection on it."""
    count: int
    """Draws it comes from."""
    size: float
    r"""$\sum_i m_i^2 / \sigma_i^2$ before the scaling."""


class Spread(NamedTuple):
    """The test of the projections of the other half."""

    z: float
    limit: float
    detectable: float
    """As a norm: root of the sum of squares of the coordinates' biases over the standard deviations of one draw."""


def learn(layout: Layout, exact: np.ndarray, moments: Moments) -> Direction:
    r"""The diagonal discriminant $v_i = m_i / \sigma_i^2$ of the deviations, over the coordinates that vary enough."""
    tolerance = rounding(layout, exact, moments)
    variance = moments.variance
    fit = np.isfinite(variance) & np.isfinite(moments.mean) & ~rare(moments) & (variance > moments.count * tolerance**2)
    safe = np.where(fit, variance, 1)
    vector = np.where(fit, moments.mean, 0) / safe
    size = float(np.sum(vector**2 * safe))
    if size > 0:
        vector = vector / np.sqrt(size)
    return Direction(vector, float(np.sum(np.abs(vector) * tolerance)), moments.count, size)


def project(direction: Direction, along: np.ndarray, rate: float) -> Spread:
    """One-sided t-test of the projections: given the direction, draws of one scalar whose mean is 0 without bias."""
    count = along.size
    limit = float(stats.t.isf(rate, count - 1))
    values = along.ravel().astype(np.float64)
    variance = float(np.var(values, ddof=1))
    if not variance > 0:
        return Spread(0.0 if variance == 0 else np.nan, limit, np.nan)
    z = (float(np.mean(values)) - direction.allowance) / np.sqrt(variance / count)
    return Spread(z, limit, _detectable(direction, variance * direction.size, count, limit))


def _detectable(direction: Direction, noise: float, count: int, limit: float) -> float:
    """The norm that is found with probability 0.99, if the bias does not lean on correlated coordinates.

    A bias of norm s adds s^2 to the mean and to the variance of the projection, whose variance without bias is `noise`;
    the direction's own error moves the mean by s / sqrt(direction.count), up or down.
    """
    far, lost = reach(limit, count - 1), stats.norm.ppf(POWER) / np.sqrt(direction.count)
    allowance = direction.allowance * np.sqrt(direction.size)

    def surplus(s: float) -> float:
        return s**2 - lost * s - allowance - far * np.sqrt((s**2 + noise) / count)

    high = 1.0
    while surplus(high) < 0:
        high *= 2
    return float(optimize.brentq(surplus, 0, high))  # pyright: ignore[reportArgumentType]
