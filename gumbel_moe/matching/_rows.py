"""Small reductions over the datapoints, in the forms that XLA compiles to little and runs fast on a CPU."""

import jax
import jax.numpy as jnp
from jax import Array

_SAMPLE = 256  # rows, about


def best_expert(values: Array) -> Array:
    """First maximum along the last axis, int32, of sums or what is stored: no product may be in `values`.

    Comparing the distance to the maximum with 0 vectorises where comparing two large arrays, or an argmax, does not.
    But the compiler may compute `values` twice, and round a product in one of two ways: then nothing is the maximum.
    """
    k = values.shape[-1]
    below = values - jnp.max(values, axis=-1, keepdims=True)
    index = jnp.arange(k, dtype=values.dtype)
    return (-jnp.max(jnp.where(below < 0, -k, -index), axis=-1)).astype(jnp.int32)


def best_experts(values: Array, each: int | None) -> Array:
    """`best_expert`, or the `each` best ones `(n, each)`, which are distinct whatever the values."""
    return best_expert(values) if each is None else jax.lax.top_k(values, each)[1]


def anywhere(n: int, each: int | None) -> Array:
    """An assignment of the shape that is wanted: `(n,)`, or `(n, each)` for several experts."""
    if each is None:
        return jnp.zeros(n, jnp.int32)
    return jnp.broadcast_to(jnp.arange(each, dtype=jnp.int32), (n, each))


def held(assignment: Array, k: int) -> Array:
    """Which of the `k` experts every datapoint is at, `(n, k)`, for an assignment `(n, each)`."""
    return jnp.any(assignment[:, :, None] == jnp.arange(k, dtype=jnp.int32), axis=1)


def take(values: Array, index: Array) -> Array:
    """`values[index]` along the first axis for numbers that are in range: a third of indexing's program."""
    return values.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def scatter_add(size: int, index: Array, values: Array | int) -> Array:
    """Sums `(size,)` int32 of the values at each index; those at index `size` are left out."""
    return jnp.zeros(size, jnp.int32).at[index].add(values, mode="drop", wrap_negative_indices=False)


def without(values: Array, assignment: Array) -> Array:
    """The values `(n, k)` with `-inf` at every datapoint's own expert, or experts."""
    if assignment.ndim == 2:
        return jnp.where(held(assignment, values.shape[1]), -jnp.inf, values)
    return values.at[jnp.arange(values.shape[0]), assignment].set(-jnp.inf)


def count(assignment: Array, k: int) -> Array:
    """Load `(k,)` of every expert: a scatter, which compiles to less than a comparison with every expert."""
    return scatter_add(k, assignment, 1)


def own_scores(scores: Array, assignment: Array) -> Array:
    """Score of every datapoint at its own expert, or experts, of the assignment's shape: a third of the program of
    `at_expert`. They are in range.
    """
    row = jnp.arange(scores.shape[0], dtype=jnp.int32)
    if assignment.ndim == 2:
        row = jnp.broadcast_to(row[:, None], assignment.shape)
    own = jnp.stack([row, assignment], axis=-1)
    return jax.lax.gather(
        scores,
        own,
        jax.lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0, 1), start_index_map=(0, 1)),
        slice_sizes=(1, 1),
        mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def regret(shifted: Array, assignment: Array) -> Array:
    """What every datapoint would gain at its best expert, or experts, `(n,)`, where `shifted` are scores less prices.

    Of several: its worst one for the best of the others, and so on while that is a gain. None of it is negative.
    """
    if assignment.ndim == 1:
        return jnp.max(shifted, axis=1) - own_scores(shifted, assignment)
    own = jnp.sort(own_scores(shifted, assignment), axis=1)
    others = jax.lax.top_k(without(shifted, assignment), own.shape[1])[0]
    return jnp.sum(jnp.maximum(others - own, 0), axis=1)


def margin(shifted: Array, assignment: Array) -> Array:
    """By how much the best expert that is not a datapoint's own is ahead of its worst own one, `(n,)`."""
    own = own_scores(shifted, assignment)
    return jnp.max(without(shifted, assignment), axis=1) - (own if assignment.ndim == 1 else jnp.min(own, axis=1))


def from_zero(prices: Array, holders: Array) -> Array:
    """Prices shifted so that the least is 0; place-holders sit at the least one, exactly so without rounding."""
    return jnp.where(holders > 0, 0, prices - jnp.min(prices))


def sampled(rows: Array) -> Array:
    """Some of the rows, spread evenly: enough to estimate what they are like."""
    return rows[:: max(1, rows.shape[0] // _SAMPLE)]


def total(values: Array) -> Array:
    """The sum of `(n,)` values, without overflow on the way to one that the type can hold."""
    parts = 2.0 ** max(values.shape[0] - 1, 0).bit_length()
    large = jnp.max(jnp.abs(values)) > float(jnp.finfo(values.dtype).max) / parts
    part = jnp.where(large, 1 / parts, 1).astype(values.dtype)
    return jnp.sum(values * part) / part


def difference(a: Array, b: Array) -> tuple[Array, Array]:
    """`a - b`, and what rounding took from it: the sum of both is exact (Knuth's TwoSum); 0 where it is not finite."""
    rounded = a - b
    back = rounded - a
    rest = (a - (rounded - back)) - (b + back)
    return rounded, jnp.where(jnp.isfinite(rounded), rest, 0)
