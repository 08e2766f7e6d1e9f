"""Argument checks shared by every room: eager errors in the words of the caller's argument."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike


def is_traced(*values: Any) -> bool:
    """Whether a value is abstract here, so that it cannot be looked at."""
    return any(isinstance(value, Tracer) for value in values)


def check_matrix(
    name: str, value: ArrayLike, *, integers: bool = False, exact_rank: int | None = None, look: bool = True
) -> Array:
    """`value` as a floating-point array of shape `(..., n, k)`, looked at for NaN and +inf where that is possible.

    Half precision is widened to float32. `integers=True` turns integers to floats instead of refusing them.
    `look=False` leaves the entries to `check_entries`.
    """
    array = _as_array(value)
    if exact_rank is not None and array.ndim != exact_rank:
        raise ValueError(f"{name} must have shape (n, k), got shape {array.shape}; use jax.vmap for batches")
    if array.ndim < 2:
        raise ValueError(f"{name} must have shape (..., n, k), at least two axes, got shape {array.shape}")
    if array.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one expert (last axis), got shape {array.shape}")
    if jnp.issubdtype(array.dtype, jnp.integer) and integers:
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got dtype {array.dtype}")
    if jnp.finfo(array.dtype).bits < 32:
        array = array.astype(jnp.float32)
    if look:
        check_entries(name, array)
    return array


def _as_array(value: ArrayLike) -> Array:
    """`value` as an array that can be looked at, unless it is traced: a constant inside `jit` stays one."""
    if is_traced(*jax.tree.leaves(value)):
        return jnp.asarray(value)
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


@jax.jit
def _flaws(array: Array) -> tuple[Array, Array, Array]:
    barred = jnp.all(array == -jnp.inf, axis=-1)
    return jnp.isnan(array).any(), jnp.isposinf(array).any(), barred


def check_entries(name: str, array: Array) -> None:
    """Raise for NaN, +inf and rows without a finite entry; a traced array cannot be looked at."""
    if is_traced(array):
        return
    with jax.ensure_compile_time_eval():  # a constant inside jit is looked at as well
        has_nan, has_inf, barred = jax.tree.map(np.asarray, _flaws(array))
    if has_nan:
        raise ValueError(f"{name} must not contain NaN, got {np.isnan(np.asarray(array)).sum()} of them")
    if has_inf:
        raise ValueError(f"{name} must not contain +inf; finite values, or -inf for a forbidden expert, are allowed")
    if barred.any():
        where = tuple(int(index) for index in np.argwhere(barred)[0])
        raise ValueError(f"{name} forbids every expert (-inf) for datapoint {where}")


def check_capacity(
    capacity: ArrayLike, num_experts: int, *, look: bool = True, batch_shape: tuple[int, ...] = ()
) -> Array | np.ndarray:
    """`capacity` as `(num_experts,)` int32, positive where that can be seen: in NumPy unless it is traced.

    `look=False` leaves the entries to `check_places`. For a batch of problems there may be one for each: leading axes
    that broadcast to `batch_shape`, and are kept.
    """
    allowed = f"capacity must be an int or ({num_experts},) ints"
    *leading, size = np.shape(capacity) or (num_experts,)
    if size != num_experts or not _broadcasts(leading, batch_shape):
        batched = f", for a batch of shape {batch_shape} with leading axes to match" if batch_shape else ""
        raise ValueError(f"{allowed}{batched}, got shape {np.shape(capacity)}")
    shape = (*leading, num_experts)
    limits = np.iinfo(np.int32)
    if is_traced(capacity):
        traced = jnp.asarray(capacity)
        if not jnp.issubdtype(traced.dtype, jnp.integer):
            raise ValueError(f"{allowed}, got dtype {traced.dtype}")
        own = jnp.iinfo(traced.dtype)
        traced = jnp.clip(traced, max(own.min, limits.min), min(own.max, limits.max))
        return jnp.broadcast_to(traced.astype(jnp.int32), shape)
    places = np.asarray(capacity)
    if not np.issubdtype(places.dtype, np.integer):
        raise ValueError(f"{allowed}, got {capacity!r}")
    if look:
        check_places(capacity)
    own = np.iinfo(places.dtype)
    places = np.clip(places, max(own.min, limits.min), min(own.max, limits.max))
    return np.broadcast_to(places.astype(np.int32), shape)


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Whether an array of `shape` broadcasts to shape `to`."""
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))


def check_places(capacity: ArrayLike) -> None:
    """Raise for a capacity below 1; a traced one cannot be looked at."""
    if not is_traced(capacity) and np.any(np.asarray(capacity) < 1):
        raise ValueError(f"capacity must be at least 1 for every expert, got {capacity!r}")


def check_room(capacity: Array | np.ndarray, num_datapoints: int) -> None:
    """Raise when the experts together cannot hold the datapoints; a traced capacity cannot be looked at."""
    if not is_traced(capacity):
        places = int(np.min(np.sum(np.asarray(capacity), axis=-1, dtype=np.int64), initial=num_datapoints))
        if places < num_datapoints:
            raise ValueError(
                f"capacity has room for {places} datapoints (sum over {capacity.shape[-1]} experts), "
                f"but there are {num_datapoints}"
            )


def check_positive_int(name: str, value: Any) -> int:
    """`value` as a Python int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a positive int, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be a positive int, got {number}")
    return number


def check_positive(name: str, value: float) -> float:
    """`value` as a finite Python float above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, got {value!r}")
    return float(value)
