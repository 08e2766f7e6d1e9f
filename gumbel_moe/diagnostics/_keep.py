"""Which coordinates to keep every draw of."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gumbel_moe.diagnostics._layout import Layout


def choose_kept(keep: int | Sequence[int | str] | np.ndarray, layout: Layout) -> np.ndarray:
    """Sorted indices of the coordinates: so many at random, the same ones every time, or those asked for."""
    size = layout.size
    if isinstance(keep, str) or np.ndim(keep) > 1:
        raise ValueError(f"keep must be a number or a sequence of indices or names, got {keep!r}")
    if np.ndim(keep) == 0:
        count = _index(keep)
        if count < 0:
            raise ValueError(f"keep must not be negative, got {count}")
        if count >= size:
            return np.arange(size)
        return np.sort(np.random.default_rng(0).choice(size, count, replace=False))
    places = [_place(entry, layout) for entry in np.asarray(keep, object).tolist()]
    return np.unique(np.array(places, np.int64))


def _place(entry: Any, layout: Layout) -> int:
    if isinstance(entry, str):
        return layout.place(entry)
    place = _index(entry)
    if not -layout.size <= place < layout.size:
        raise ValueError(f"keep must hold indices below {layout.size}, got {place}")
    return place % layout.size


def _index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"keep must be a number or a sequence of indices or names, got {value!r}") from None
