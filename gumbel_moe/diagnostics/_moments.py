"""Running mean and variance of every coordinate, merged batch by batch in double precision."""

import numpy as np

from gumbel_moe.diagnostics._draws import Batch


class Moments:
    """Of the deviations from the exact gradient: memory for a few vectors, however many draws.

    A batch brings its own mean and sum of squares, which are merged (T. Chan, G. Golub, R. LeVeque, 1979): nothing is
    ever the small difference of two large sums.
    """

    def __init__(self, size: int, products: bool = False) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)
        self.products = np.zeros((size, size)) if products else None
        self.magnitude = np.zeros(size)
        self.peak = np.zeros(size)
        self.nonzero = np.zeros(size, np.int64)
        self.broken = np.zeros(size, np.int64)

    def add(self, batch: Batch) -> None:
        """Merge what was kept of a batch."""
        count, scale = int(batch.count), np.asarray(batch.scale, np.float64)
        squares = np.asarray(batch.squares, np.float64) * scale**2
        magnitude = np.asarray(batch.magnitude, np.float64)
        gap = self._merge(count, np.asarray(batch.mean, np.float64) * scale, squares, magnitude)
        if self.products is not None:
            self.products += np.asarray(batch.products, np.float64) * scale * scale[:, None] + gap * gap[:, None]
        self._count(np.asarray(batch.peak, np.float64), np.asarray(batch.nonzero), np.asarray(batch.broken))

    def with_(self, other: "Moments") -> "Moments":
        """Of the draws of both together; without the products."""
        both = Moments(len(self.mean))
        for part in (self, other):
            both._merge(part.count, part.mean, part.squares, part.magnitude)
            both._count(part.peak, part.nonzero, part.broken)
        return both

    @property
    def variance(self) -> np.ndarray:
        """`(size,)`: of one draw."""
        return self.squares / max(self.count - 1, 1)

    def _merge(self, count: int, mean: np.ndarray, squares: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
        total = self.count + count
        delta, share = mean - self.mean, count / total
        gap = delta * np.sqrt(self.count * share)
        self.mean = self.mean + delta * share
        self.squares = self.squares + squares + gap**2
        self.magnitude = self.magnitude + (magnitude - self.magnitude) * share
        self.count = total
        return gap

    def _count(self, peak: np.ndarray, nonzero: np.ndarray, broken: np.ndarray) -> None:
        self.peak = np.maximum(self.peak, peak)
        self.nonzero += nonzero
        self.broken += broken
