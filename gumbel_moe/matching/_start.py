"""Where the search for prices starts: first prices, and the temperature that suits how good they are."""

import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._rows import best_experts, count, sampled

COLD_START = 0.05  # first temperature, relative to the spread of the scores
_COOLEST = 1e-3  # the same from given prices, at least


def centre_and_spread(scores: Array, far: Array) -> tuple[Array, Array]:
    """Prices `(k,)` at which the experts would be about equally wanted, and how far the best then stands out.

    The mean distance of every expert to the best one, whose score is 0. Forbidden pairs count as the best, and so do
    those at least `far` below it; but for experts that are far from everybody.
    """
    below = sampled(scores)
    counts = below > -far
    counts = (counts | ~jnp.any(counts, axis=0)) & (below > -jnp.inf)
    below = jnp.where(counts, below, 0)
    centre = jnp.mean(below, axis=0)
    return centre - jnp.min(centre), jnp.mean(jnp.max(below - centre, axis=1))


def plausible(scores: Array, prices: Array) -> Array:
    """The given prices, from 0 and cut off at the largest difference of two scores of a datapoint, the best being 0.

    Without forbidden pairs optimal prices differ by no more; the way back from wild ones is long and costs precision.
    """
    widest = -jnp.min(jnp.where(scores > -jnp.inf, scores, 0))
    return jnp.clip(prices - jnp.min(prices), 0, widest)


def first_temperature(scores: Array, capacity: Array, prices: Array, spread: Array, each: int | None = None) -> Array:
    """In proportion to the datapoints that rounding at the given `prices` sends to overfull experts."""
    n, k = scores.shape
    load = count(best_experts(scores - prices, each), k)
    misplaced = jnp.sum(jnp.maximum(load - capacity, 0)).astype(scores.dtype) / (n * (each or 1))
    return spread * jnp.clip(misplaced, _COOLEST, COLD_START)
