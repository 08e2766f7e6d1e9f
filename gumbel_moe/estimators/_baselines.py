"""Baselines from other draws of the same batch."""

import jax.numpy as jnp
from jax import Array


def leave_one_out(weight: Array, weighted: Array) -> Array:
    """For each of `m` draws, the weighted mean of each datapoint's terms over the other draws: `(m, n)`.

    `weight` and `weighted` (weight times term) are `(m, n)`. A datapoint that no other draw kept gets the mean over
    all datapoints instead. No entry depends on its own draw, which is what keeps the estimate unbiased.
    """

    def others(x: Array) -> Array:
        return jnp.sum(x, axis=0) - x

    def ratio(top: Array, bottom: Array, otherwise: Array) -> Array:
        return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1), otherwise)

    weight, weighted = others(weight), others(weighted)
    common = ratio(jnp.sum(weighted, axis=1), jnp.sum(weight, axis=1), jnp.zeros(()))
    return ratio(weighted, weight, common[:, None])
