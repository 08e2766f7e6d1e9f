"""Many ties: prices cannot tell tied datapoints apart, a little noise can."""

import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._repair import Plan
from gumbel_moe.matching._residual import residual_costs

_NOISE = 0.02  # relative to the spread of the scores
_FIRST = 0.25  # temperatures for the noisy scores, relative to the noise
_LAST = 1e-4
_ROUNDS = 16  # most paths between experts have a few edges; a negative cycle would take `k` rounds to show


def without_ties(scores: Array, spread: Array) -> Array:
    """The scores with a little noise."""
    return scores + _NOISE * spread * _noise(scores)


def temperatures(spread: Array) -> tuple[Array, Array]:
    """The first and the last that suit scores `without_ties`."""
    warmest = _FIRST * _NOISE * spread
    return warmest, _LAST * warmest


def tested(scores: Array, plan: Plan) -> tuple[Array, Array]:
    """Optimal prices for a plan that noise has led to, and whether it is the best one for its loads.

    It is if the residual graph of the scores themselves has no negative cycle.
    """
    return lowered(residual_costs(scores, plan.assignment, plan.holders > 0), plan.prices, _ROUNDS)


def _noise(scores: Array) -> Array:
    """Numbers between 0 and 1 without a pattern that could tie again; far cheaper than `n k` random draws."""
    n, k = scores.shape
    numbers = _scrambled(n + k).astype(scores.dtype)
    return 1000 * numbers[:n, None] * numbers[n:] % 1


def _scrambled(size: int) -> Array:
    """Numbers `(size,)` between 0 and 1, float32, that follow no pattern: a multiplicative hash of their position."""
    bits = jnp.arange(1, size + 1, dtype=jnp.uint32)
    for factor in (0x7FEB352D, 0x846CA68B):
        bits = (bits ^ (bits >> 16)) * jnp.uint32(factor)
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)
