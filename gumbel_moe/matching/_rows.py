"""Small reductions over the datapoints, in the forms that XLA runs fast on a CPU."""

import jax.numpy as jnp
from jax import Array


def best_expert(values: Array) -> Array:
    """First maximum along the last axis, int32.

    Comparing the distance to the maximum with 0 vectorises where comparing two large arrays, or an argmax, does not.
    """
    k = values.shape[-1]
    below = values - jnp.max(values, axis=-1, keepdims=True)
    index = jnp.arange(k, dtype=values.dtype)
    return (-jnp.max(jnp.where(below < 0, -k, -index), axis=-1)).astype(jnp.int32)


def without(values: Array, assignment: Array) -> Array:
    """The values `(n, k)` with `-inf` at every datapoint's own expert."""
    return values.at[jnp.arange(values.shape[0]), assignment].set(-jnp.inf)


def count(assignment: Array, k: int) -> Array:
    """Load `(k,)` of every expert."""
    return jnp.zeros(k, jnp.int32).at[assignment].add(1)


def own_scores(scores: Array, assignment: Array) -> Array:
    """Score `(n,)` of every datapoint at its own expert."""
    return jnp.take_along_axis(scores, assignment[:, None], axis=1)[:, 0]
