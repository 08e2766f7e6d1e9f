"""Single draws of several estimators, as training makes them: how long one takes, and the first look at them."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from gumbel_moe.diagnostics._draws import GradientEstimator
from gumbel_moe.diagnostics._layout import Layout

_TABLE_BYTES = 2**26
_MOST = 64


class Timed(NamedTuple):
    """The draws of one estimator."""

    draws: np.ndarray
    """`(repeats, size)` float64."""
    seconds: np.ndarray
    """`(repeats,)`: wall time of each, compiled before."""


def timed_draws(estimates: Mapping[str, GradientEstimator], layout: Layout, key: Array, draws: int) -> dict[str, Timed]:
    """The estimators take turns, so that what else the machine does falls on all of them."""
    repeats = max(2, min(_MOST, draws, _TABLE_BYTES // (8 * layout.size)))
    compiled = {name: jax.jit(estimate) for name, estimate in estimates.items()}
    keys = jax.random.split(key, repeats)
    for one in compiled.values():
        jax.block_until_ready(one(keys[0]))
    tables = {name: (np.empty((repeats, layout.size)), np.empty(repeats)) for name in compiled}
    for at in range(repeats):
        for name, one in compiled.items():
            start = time.perf_counter()
            value = jax.block_until_ready(one(keys[at]))
            tables[name][1][at] = time.perf_counter() - start
            tables[name][0][at] = layout.numbers(value)
    return {name: Timed(*table) for name, table in tables.items()}
