"""Argument checks shared by every room: eager errors in the words of the caller's argument."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array, as_floats, is_traced


def check_matrix(
    name: str, value: ArrayLike, *, integers: bool = False, exact_rank: int | None = None, look: bool = True
) -> Array:
    """`value` as a floating-point array of shape `(..., n, k)`, looked at for NaN and +inf where that is possible.

    Half precision is widened to float32. `integers=True` turns integers to floats instead of refusing them.
    `look=False` leaves the entries to `check_entries`.
    """
    array = as_floats(name, value) if integers else as_array(name, value)
    if exact_rank is not None and array.ndim != exact_rank:
        raise ValueError(
            f"{name} must have shape (n, k), got shape {array.shape}; gumbel_moe.routing.as_one_batch makes one batch "
            "of leading axes, jax.vmap many"
        )
    if array.ndim < 2:
        raise ValueError(f"{name} must have shape (..., n, k), at least two axes, got shape {array.shape}")
    if array.shape[-1] == 0:
        raise ValueError(f"{name} must have at least one expert (last axis), got shape {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating point, got dtype {array.dtype}")
    if jnp.finfo(array.dtype).bits < 32:
        array = array.astype(jnp.float32)
    if look:
        check_entries(name, array)
    return array


def check_logits(
    logits: ArrayLike, mask: ArrayLike | None = None, *, exact_rank: int | None = None, look: bool = True
) -> tuple[Array, Array | None]:
    """`logits` `(..., n, k)` and the `mask` `(..., n)` of the datapoints that take part.

    The rows of the others, which may hold anything, become 0.
    """
    array = check_matrix("logits", logits, exact_rank=exact_rank, look=False)
    present = check_mask(mask, array.shape[:-1])
    if present is not None:
        array = jnp.where(present[..., None], array, 0)
    if look:
        check_entries("logits", array)
    return array, present


def check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """`mask` as booleans of `shape`, to which it broadcasts; its last axis are the datapoints."""
    if mask is None:
        return None
    array: Any = mask if is_traced(mask) else np.asarray(mask)
    fits = array.ndim > 0 and array.shape[-1] == shape[-1] and array.ndim <= len(shape)
    fits = fits and all(size in (1, wanted) for size, wanted in zip(array.shape[::-1], shape[::-1], strict=False))
    if array.dtype != bool or not fits:
        raise ValueError(
            f"mask must be bool of shape {shape}, true for the datapoints that take part, "
            f"got {array.dtype} of shape {array.shape}"
        )
    with jax.ensure_compile_time_eval():
        return jnp.broadcast_to(array, shape)


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
        advice = "; a datapoint is left out by mask" if name == "logits" else ""
        raise ValueError(f"{name} forbids every expert (-inf) for datapoint {where}{advice}")


def check_capacity(
    capacity: ArrayLike, num_experts: int | None, *, look: bool = True, batch_shape: tuple[int, ...] = ()
) -> Array | np.ndarray:
    """`capacity` as `(num_experts,)` int32, positive where that can be seen: in NumPy unless it is traced.

    `look=False` leaves the entries to `check_places`. For a batch of problems there may be one for each: leading axes
    that broadcast to `batch_shape`, and are kept. Where `num_experts` is None, `capacity` itself says how many experts
    and problems there are, and an int is refused.
    """
    if num_experts is None:
        allowed = "capacity must be (..., k) ints, one for every expert"
        *batch, k = np.shape(capacity) or (0,)
        batch_shape = tuple(batch)
        if k == 0:
            raise ValueError(f"{allowed}, which says how many experts there are, got shape {np.shape(capacity)}")
    else:
        allowed, k = f"capacity must be an int or ({num_experts},) ints", num_experts
    *leading, size = np.shape(capacity) or (k,)
    if size != k or not _broadcasts(leading, batch_shape):
        batched = f", for a batch of shape {batch_shape} with leading axes to match" if batch_shape else ""
        raise ValueError(f"{allowed}{batched}, got shape {np.shape(capacity)}")
    shape = (*leading, k)
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


def check_room(capacity: Array | np.ndarray, num_datapoints: int, present: Array | None = None) -> None:
    """Raise when the experts together cannot hold the datapoints, or those `present`; traced numbers are not seen."""
    if is_traced(capacity, present):
        return
    places = np.sum(np.asarray(capacity), axis=-1, dtype=np.int64)
    wanted = np.int64(num_datapoints) if present is None else np.sum(np.asarray(present), axis=-1)
    short = np.argwhere(places < wanted)
    if len(short):
        places, wanted = (np.broadcast_to(x, np.broadcast_shapes(places.shape, wanted.shape)) for x in (places, wanted))
        raise ValueError(
            f"capacity has room for {places[tuple(short[0])]} datapoints (sum over {capacity.shape[-1]} experts), "
            f"but there are {wanted[tuple(short[0])]}"
        )


def check_pairs(capacity: Array | np.ndarray, num_datapoints: int, each: int) -> None:
    """Raise when the experts cannot hold `each` distinct ones for every datapoint; traced numbers are not seen."""
    if is_traced(capacity):
        return
    places = np.minimum(np.asarray(capacity), num_datapoints).sum(dtype=np.int64)
    if places < num_datapoints * each:
        raise ValueError(
            f"capacity has room for {places} pairs of a datapoint and an expert (no pair twice), "
            f"but {num_datapoints} datapoints of {each} experts each are {num_datapoints * each}"
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


def check_number(name: str, value: Any) -> int:
    """`value` as a Python int of at least 0."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{name} must be an int of at least 0, got {value!r}")
    return number


def check_positive(name: str, value: float) -> float:
    """`value` as a finite Python float above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and positive, got {value!r}")
    return float(value)


def check_rate(false_fail_rate: float) -> float:
    """A probability, neither 0 nor 1."""
    if not 0 < false_fail_rate < 1:
        raise ValueError(f"false_fail_rate must be between 0 and 1, got {false_fail_rate!r}")
    return float(false_fail_rate)


def check_draws(draws: int, least: int) -> int:
    """A number of draws."""
    number = check_positive_int("draws", draws)
    if number < least:
        raise ValueError(f"draws must be at least {least}, got {number}")
    return number
