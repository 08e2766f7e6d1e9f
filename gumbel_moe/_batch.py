"""Leading batch axes: one problem's function, mapped over all of them."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array


def over_leading_axes(function: Callable[..., Any], core_ranks: tuple[int, ...], *arrays: Array) -> Any:
    """Apply `function` to arrays whose leading axes agree; `core_ranks` are the ranks that it wants."""
    batch = arrays[0].shape[: arrays[0].ndim - core_ranks[0]]
    if not batch:
        return function(*arrays)
    flat = [x.reshape((-1, *x.shape[len(batch) :])) for x in arrays]
    out = jax.vmap(function)(*flat)
    return jax.tree.map(lambda x: x.reshape((*batch, *x.shape[1:])), out)
