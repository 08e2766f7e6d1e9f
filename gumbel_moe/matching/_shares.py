"""Several experts for a datapoint: how much of each it has, where the sum of its best scores is smoothed.

The largest of `sum_j w_j x_j + tau * entropy` over weights between 0 and 1 that add up to `m` is a smooth stand-in for
the sum of the `m` largest `x_j`. Its weights are `1 / (1 + exp((threshold - x_j) / tau))`, each datapoint with a
threshold of its own that makes them add up.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_STEPS = 4  # to the threshold; what is left to it only makes the prices that are found a little worse
_DECIDED = 80.0  # temperatures between two experts that are as good as infinite
_LONGEST = 3.0  # of a step, in temperatures
_LOOSE = 1e-3  # the sum of the variances below which the weights are right as they are


def shares(shifted: Array, each: int) -> Array:
    """Weights `(n, k)` between 0 and 1, those of a datapoint about `each` in all, for `shifted` in temperatures."""
    k = shifted.shape[1]
    best = jax.lax.top_k(shifted, each + 1)[0]
    last, first_left = best[:, each - 1], best[:, each]
    first_left = jnp.maximum(first_left, last - _DECIDED)
    lowest, highest = first_left - float(np.log(k)), last + float(np.log(k))
    threshold = (last + first_left) / 2
    for _ in range(_STEPS):
        # Newton's method on the logit of the mean weight: for a single weight it would be there in one step.
        weights = jax.nn.sigmoid(shifted - threshold[:, None])
        loose = jnp.sum(weights * (1 - weights), axis=1)
        mean = jnp.clip(jnp.mean(weights, axis=1), 1e-3 / k, 1 - 1e-3 / k)
        ahead = jnp.log(mean / (1 - mean)) - float(np.log(each / (k - each)))
        step = jnp.clip(ahead * k * mean * (1 - mean) / jnp.maximum(loose, _LOOSE), -_LONGEST, _LONGEST)
        threshold = jnp.clip(threshold + jnp.where(loose > _LOOSE, step, 0), lowest, highest)
    return jax.nn.sigmoid(shifted - threshold[:, None])
