"""Every coordinate on its own: the mean of the draws against the exact gradient."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from gumbel_moe.diagnostics._layout import Layout
from gumbel_moe.diagnostics._moments import Moments

_ROUNDINGS = 32  # sums of some hundred terms in another order differ by that much
_RARE = 50  # draws that are not 0: with fewer, the sample says little about its own variance
POWER = 0.99  # of the biases called detectable


class CoordinateTests(NamedTuple):
    """`(size,)` arrays, but for the limit."""

    bias: np.ndarray
    """Mean of the draws minus the exact gradient."""
    error: np.ndarray
    """Standard error of the mean."""
    allowance: np.ndarray
    """How far off the mean may be without saying anything: rounding, and events too rare to have been seen."""
    z: np.ndarray
    """What the bias exceeds its allowance by, in standard errors."""
    detectable: np.ndarray
    """The bias that would have been found with probability 0.99."""
    limit: float
    """Of the absolute z-scores."""


def rounding(layout: Layout, exact: np.ndarray, moments: Moments) -> np.ndarray:
    """`(size,)`: by how much two ways of computing the same gradient may differ.

    A coordinate that hardly varies may be the small sum of large terms: it has the rounding of its whole leaf.
    """
    own = np.maximum(np.abs(exact), moments.magnitude)
    of_leaf = _ROUNDINGS * layout.eps * layout.largest(own)
    return np.where(np.sqrt(moments.variance) > of_leaf, _ROUNDINGS * layout.eps * own, of_leaf)


def rare(moments: Moments) -> np.ndarray:
    """`(size,)`: whether nearly all draws are 0."""
    return moments.nonzero <= min(_RARE, moments.count // 4)


def judge(layout: Layout, exact: np.ndarray, centre: np.ndarray, moments: Moments, rate: float) -> CoordinateTests:
    """Bonferroni over the coordinates; `centre` is what the moments are about."""
    each = rate / layout.size
    limit = float(stats.t.isf(each / 2, moments.count - 1))
    bias = moments.mean + (centre - exact)
    deviation = np.sqrt(moments.variance)
    # Equal draws come out of the device's sums with a spread of a few roundings.
    error = np.where(deviation > 8 * layout.eps * np.abs(bias), deviation, 0) / np.sqrt(moments.count)
    allowance = rounding(layout, exact, moments) + _unseen(layout, moments, each)
    excess = np.maximum(np.abs(bias) - allowance, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(excess > 0, np.sign(bias) * excess / error, 0.0)
    z = np.where(np.isfinite(bias) & np.isfinite(error), z, np.nan)
    return CoordinateTests(bias, error, allowance, z, allowance + reach(limit, moments.count - 1) * error, limit)


def reach(limit: float, freedom: int) -> float:
    """In standard errors, the shift that takes a t-score beyond its limit with probability 0.99.

    The normal approximation of the noncentral t-distribution (N. Johnson and B. Welch, Biometrika 31, 1940).
    """
    spread = np.sqrt(1 + limit**2 / (2 * freedom))
    return float(limit * (1 - 1 / (4 * freedom)) + stats.norm.ppf(POWER) * spread)


def draws_for(
    bias: float, layout: Layout, exact: np.ndarray, moments: Moments, tests: CoordinateTests, rate: float
) -> int:
    """The least number of draws of which every coordinate's detectable bias is at most `bias`, from `tests` of fewer
    or more: rounding stays as it is, what events unseen may add falls with the number of draws.
    """
    if not (np.isfinite(tests.error).all() and np.isfinite(tests.allowance).all()):
        raise ValueError("draws_needed must have draws that are finite, and not all of them were")
    fixed = rounding(layout, exact, moments)
    unseen = (tests.allowance - fixed) * moments.count
    deviation = tests.error * np.sqrt(moments.count)
    if bias <= np.max(fixed):
        raise ValueError(f"bias must be above {np.max(fixed):.2g}, which rounding alone may be, got {bias:.2g}")

    def enough(draws: int) -> bool:
        limit = float(stats.t.isf(rate / (2 * layout.size), draws - 1))
        return bool(np.max(fixed + unseen / draws + reach(limit, draws - 1) * deviation / np.sqrt(draws)) <= bias)

    low, high = 1, 4
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _unseen(layout: Layout, moments: Moments, rate: float) -> np.ndarray:
    """What events too rare for these draws could add to the mean: their rate at most, times the largest value seen.

    A router that hardly ever chooses an expert gives its parameters gradients that are nearly always 0: unbiased, but
    the draws cannot show it. Where a whole leaf is 0 throughout, the largest value is that of all leaves.
    """
    peak = layout.largest(moments.peak)
    peak = np.where(peak > 0, peak, np.max(moments.peak))
    most = stats.chi2.isf(rate, 2 * (moments.nonzero + 1)) / 2  # of a Poisson mean, given the events seen
    return np.where(rare(moments), peak * most / moments.count, 0)
