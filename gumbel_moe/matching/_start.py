"""Where the search for prices starts: first prices, and the temperature that suits how good they are."""

import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._rows import best_expert, count

_ROWS = 256  # centre and spread are estimated from about so many rows
COLD_START = 0.1  # first temperature, relative to the spread of the scores
_WARMEST = 0.25  # first temperature from given prices at most
_COOLEST = 1e-3  # and at least


def centre_and_spread(scores: Array) -> tuple[Array, Array]:
    """The mean score of every expert `(k,)`, and how far the best stands above it; forbidden pairs left out."""
    scores = scores[:: max(1, scores.shape[0] // _ROWS)]
    allowed = scores > -jnp.inf
    total, number = jnp.sum(jnp.stack([jnp.where(allowed, scores, 0), allowed.astype(scores.dtype)]), axis=1)
    centre = total / jnp.maximum(number, 1)
    return centre, jnp.mean(jnp.max(scores - centre, axis=1))


def first_temperature(scores: Array, places: Array, prices: Array, spread: Array) -> Array:
    """Proportional to the fraction of datapoints that rounding at the given `prices` sends to overfull experts."""
    n, k = scores.shape
    load = count(best_expert(scores - prices), k)
    misplaced = jnp.sum(jnp.maximum(load - places, 0)).astype(scores.dtype) / n
    return spread * jnp.clip(2 * misplaced, _COOLEST, _WARMEST)
