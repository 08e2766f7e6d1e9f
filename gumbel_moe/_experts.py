"""What every room asks of experts: the best ones, an entry at a datapoint's own, how many have one, their queues, and
who is beyond a capacity.

The search of a matching does some of it in other ways, which compile to less there (`matching/_rows.py`).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def best_expert(scores: Array) -> Array:
    """The first best expert `(n,)` of every datapoint, int32."""
    return jax.lax.argmax(scores, 1, jnp.int32)


def best_experts(scores: Array, number: int) -> Array:
    """The `number` best experts `(n, number)` of every datapoint, int32 and ascending, the first among equals.

    A datapoint with fewer scores above `-inf` has `k`, who is nobody, at the end.
    """
    values, experts = jax.lax.top_k(scores, number)
    return jnp.sort(jnp.where(jnp.isneginf(values), scores.shape[1], experts), axis=1).astype(jnp.int32)


def at_expert(table: Array, expert: Array) -> Array:
    """`table[..., i, expert[..., i]]`, leading axes broadcast; entries of experts -1 and `k`, who are nobody, mean
    nothing.
    """
    shape = jnp.broadcast_shapes(table.shape[:-1], expert.shape)
    table = jnp.broadcast_to(table, (*shape, table.shape[-1]))
    index = jnp.broadcast_to(jnp.clip(expert, 0, table.shape[-1] - 1), shape)
    return jnp.take_along_axis(table, index[..., None], axis=-1)[..., 0]


def at_experts(table: Array, experts: Array) -> Array:
    """`table[i, experts[i, r]]` for `(n, m)` experts, or `table[i, experts[i]]` for one each; entries of nobody, -1 and
    `k`, mean nothing.
    """
    if experts.ndim == 1:
        return at_expert(table, experts)
    return jnp.take_along_axis(table, jnp.clip(experts, 0, table.shape[1] - 1), axis=1)


def beside(per_datapoint: Array, experts: Array) -> Array:
    """`(n,)` numbers with axes of size 1 behind, to go with `(n,)` or `(n, m)` experts."""
    return per_datapoint.reshape(per_datapoint.shape + (1,) * (experts.ndim - 1))


def count(expert: Array, num_experts: int, counted: ArrayLike = True) -> Array:
    """`(..., k)` int32: how many of the datapoints `(..., n)` every expert has, of those that count."""
    hit = expert[..., None] == jnp.arange(num_experts, dtype=expert.dtype)
    return jnp.sum(hit & jnp.asarray(counted)[..., None], axis=-2, dtype=jnp.int32)


def places_in_queues(expert: Array, num_experts: int, priority: Array | None = None) -> Array:
    """Place `(n,)` of every datapoint among those of its expert, the first being 0: in the order of the batch, or of
    `priority`. Those of expert `k` queue nowhere, and their places mean nothing.
    """
    index = jnp.arange(expert.shape[0], dtype=jnp.int32)
    keys = (expert,) if priority is None else (expert, priority)
    queue, *_, who = jax.lax.sort((*keys, index), num_keys=len(keys), is_stable=True)
    first = jnp.searchsorted(queue, jnp.arange(num_experts + 1, dtype=queue.dtype)).astype(jnp.int32)
    return jnp.zeros_like(index).at[who].set(index - first[queue])


def keep_first(expert: Array, priority: Array, capacity: Array) -> Array:
    """Which datapoints `(n,)` are among the first `capacity` of their expert, in the order of `priority`."""
    return places_in_queues(expert, capacity.shape[0], priority) < capacity[expert]


def surplus_weights(expert: Array, capacity: Array) -> Array:
    """`(..., n)` how many datapoints each one stands for, if it is kept: those of its expert over those kept."""
    drawn = count(expert, capacity.shape[-1])
    ratio = drawn / jnp.clip(drawn, 1, capacity)
    return at_expert(jnp.expand_dims(ratio, -2), expert)
