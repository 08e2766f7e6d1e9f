"""Batches of problems: one problem's function, mapped over all of them in the way that suits the device."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from gumbel_moe._varying import vary_like


def one_by_one_on_cpu(function: Callable[..., Any], on_cpu: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`function` of arrays, such that `vmap` loops over the problems on a CPU and runs them all at once elsewhere.

    `on_cpu` is what computes the same for one problem there, if it is not `function`.

    Loops inside a vmapped function run until the slowest problem of the batch is done, and both sides of a condition
    are computed. An accelerator gains more than that by working on all problems at once, a CPU does not.
    """
    function = _all_varying(function)
    on_cpu = None if on_cpu is None else _all_varying(on_cpu)

    @custom_vmap
    def single(*args: Any) -> Any:
        return function(*args) if on_cpu is None else jax.lax.platform_dependent(*args, cpu=on_cpu, default=function)

    @single.def_vmap
    def batched(size: int, is_batched: list[Any], *args: Any) -> tuple[Any, Any]:
        def stacked(arg: Array, has_axis: bool) -> Array:
            return arg if has_axis else jnp.broadcast_to(arg, (size, *arg.shape))

        stack = [jax.tree.map(stacked, arg, has_axis) for arg, has_axis in zip(args, is_batched, strict=True)]
        out = jax.lax.platform_dependent(
            *stack,
            cpu=lambda *problems: jax.lax.map(lambda problem: single(*problem), problems),
            default=jax.vmap(function),
        )
        return out, jax.tree.map(lambda _: True, out)

    return single


def _all_varying(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, such that constants among its results vary over a mesh as the others do: two devices' must agree."""

    @wraps(function)
    def varying(*args: Any) -> Any:
        return vary_like(args, function(*args))

    return varying


def over_leading_axes(function: Callable[..., Any], core_ranks: tuple[int, ...], *arrays: Array) -> Any:
    """Apply `function` to arrays whose leading axes agree; `core_ranks` are the ranks that it wants."""
    batch = arrays[0].shape[: arrays[0].ndim - core_ranks[0]]
    if not batch:
        return function(*arrays)
    flat = [x.reshape((math.prod(batch), *x.shape[len(batch) :])) for x in arrays]
    out = jax.vmap(function)(*flat)
    return jax.tree.map(lambda x: x.reshape((*batch, *x.shape[1:])), out)
