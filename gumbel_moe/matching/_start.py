"""Where the search for prices starts: first prices, and the temperature that suits how good they are."""

import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._rows import best_expert, count

_ROWS = 256  # centre and spread are estimated from about so many rows
COLD_START = 0.05  # first temperature, relative to the spread of the scores
_COOLEST = 1e-3  # the same from given prices, at least


def centre_and_spread(scores: Array, top: Array) -> tuple[Array, Array]:
    """Prices `(k,)` at which the experts would be about equally wanted, and how far the best then stands out.

    The mean distance of every expert to the best one, whose score is `top` `(n,)`; forbidden pairs count as the best.
    """
    stride = max(1, scores.shape[0] // _ROWS)
    below = scores[::stride] - top[::stride, None]
    below = jnp.where(below > -jnp.inf, below, 0)
    centre = jnp.mean(below, axis=0)
    return centre - jnp.min(centre), jnp.mean(jnp.max(below - centre, axis=1))


def plausible(scores: Array, top: Array, prices: Array) -> Array:
    """The given prices, from 0 and cut off at the largest difference of two scores of a datapoint.

    Without forbidden pairs optimal prices differ by no more; the way back from wild ones is long and costs precision.
    """
    below = scores - top[:, None]
    widest = -jnp.min(jnp.where(below > -jnp.inf, below, 0))
    return jnp.clip(prices - jnp.min(prices), 0, widest)


def first_temperature(scores: Array, capacity: Array, prices: Array, spread: Array) -> Array:
    """In proportion to the datapoints that rounding at the given `prices` sends to overfull experts."""
    n, k = scores.shape
    load = count(best_expert(scores - prices), k)
    misplaced = jnp.sum(jnp.maximum(load - capacity, 0)).astype(scores.dtype) / n
    return spread * jnp.clip(misplaced, _COOLEST, COLD_START)
