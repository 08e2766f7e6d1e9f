"""What every room asks of experts: the best one, an entry at a datapoint's own, how many have one, their queues, and
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


def at_expert(table: Array, expert: Array) -> Array:
    """`table[..., i, expert[..., i]]`, leading axes broadcast; entries of experts -1 and `k`, who are nobody, mean
    nothing.
    """
    shape = jnp.broadcast_shapes(table.shape[:-1], expert.shape)
    table = jnp.broadcast_to(table, (*shape, table.shape[-1]))
    index = jnp.broadcast_to(jnp.clip(expert, 0, table.shape[-1] - 1), shape)
    return jnp.take_along_axis(table, index[..., None], axis=-1)[..., 0]


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
