"""Intervals of means of many draws: resampled blocks of them."""

import numpy as np

_BLOCKS, _RESAMPLES = 200, 2000


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """`(resamples,)` means of `values`, whose blocks are drawn with replacement."""
    blocks = np.array_split(values, min(_BLOCKS, len(values)))
    sums, counts = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    chosen = np.random.default_rng(seed).integers(0, len(blocks), (_RESAMPLES, len(blocks)))
    return sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)


def interval(values: np.ndarray, share: float) -> tuple[float, float]:
    """The middle `share` of them."""
    if not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
