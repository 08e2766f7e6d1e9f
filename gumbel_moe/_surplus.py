"""Datapoints beyond an expert's capacity, skipped at random, and the weights that make up for them."""

import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_expert, count, places_in_queues


def keep_first(expert: Array, priority: Array, capacity: Array) -> Array:
    """Which datapoints `(n,)` are among the first `capacity` of their expert, in the order of `priority`."""
    return places_in_queues(expert, capacity.shape[0], priority) < capacity[expert]


def surplus_weights(expert: Array, capacity: Array) -> Array:
    """`(..., n)` how many datapoints each one stands for, if it is kept: those of its expert over those kept."""
    drawn = count(expert, capacity.shape[-1])
    ratio = drawn / jnp.clip(drawn, 1, capacity)
    return at_expert(jnp.expand_dims(ratio, -2), expert)
