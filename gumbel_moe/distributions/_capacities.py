"""Capacities `(..., k)` of a batch of problems: nearly always the same for all of them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._checks import is_traced

_LANES = 64  # problems at a time


def common_capacity(capacity: Any) -> Any:
    """`(k,)` if all problems have the same capacity as far as can be seen; else None."""
    k = capacity.shape[-1]
    if is_traced(capacity):
        return capacity.reshape(k) if capacity.size == k else None
    rows = np.asarray(capacity).reshape(math.prod(capacity.shape[:-1]), k)
    return rows[0] if len(rows) and (rows == rows[0]).all() else None


def with_capacity(function: Callable[..., Any], capacity: Any, core_ranks: tuple[int, ...], *arrays: Array) -> Any:
    """`function(*arrays, capacity)` of a function of batches that takes one capacity `(k,)` for all.

    Where the problems differ, as distributions that `vmap` or `scan` has stacked may, it is applied to one problem at a
    time; `core_ranks` are the ranks that the arrays then have.
    """
    one = common_capacity(capacity)
    if one is not None:
        return function(*arrays, one)
    ranks = (*core_ranks, 1)
    arrays = (*arrays, jnp.asarray(capacity))
    batch = jnp.broadcast_shapes(*(x.shape[: x.ndim - rank] for x, rank in zip(arrays, ranks, strict=True)))
    cores = (x.shape[x.ndim - rank :] for x, rank in zip(arrays, ranks, strict=True))
    stacked = [jnp.broadcast_to(x, (*batch, *core)) for x, core in zip(arrays, cores, strict=True)]
    flat = [x.reshape((math.prod(batch), *x.shape[len(batch) :])) for x in stacked]
    out = jax.lax.map(lambda problem: function(*problem), flat, batch_size=_LANES)
    return jax.tree.map(lambda x: x.reshape((*batch, *x.shape[1:])), out)
