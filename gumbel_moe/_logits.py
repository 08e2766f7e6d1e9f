"""Logits without what does not matter to them: a constant of a datapoint, and where all places are taken of an expert.

Noise, prices and exponentials keep their precision then, whatever the constants are.
"""

import jax
import jax.numpy as jnp
from jax import Array


def centred(logits: Array, axis: int = -1) -> Array:
    """`logits` less their maximum along `axis`, a constant for the gradient; what is finite stays so."""
    top = jax.lax.stop_gradient(jnp.max(logits, axis=axis, keepdims=True, initial=-jnp.inf))
    lowered = logits - jnp.where(jnp.isfinite(top), top, 0)
    # The difference of two finite numbers can be beyond the float's range, and -inf is for what is forbidden.
    return jnp.where(jnp.isneginf(logits), logits, jnp.maximum(lowered, jnp.finfo(logits.dtype).min))


def without_constants(logits: Array, capacity: Array, present: Array | None = None, number: int = 1) -> Array:
    """`logits` `(..., n, k)`, centred, and where the places just suffice, every expert's column as well.

    Then every assignment, of `number` experts to a datapoint, takes the same number of datapoints from each column, and
    its constant decides nothing.
    """
    n = logits.shape[-2]
    rows = centred(logits)
    datapoints = n if present is None else jnp.sum(present, axis=-1)
    tight = jnp.sum(jnp.minimum(capacity, n + 1), axis=-1) == number * datapoints
    taking = rows if present is None else jnp.where(present[..., None], rows, -jnp.inf)
    return jnp.where(tight[..., None, None], centred(taking, axis=-2), rows)
