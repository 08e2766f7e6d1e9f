"""Dual prices by Newton's method on the entropy-smoothed dual: a start for the exact repair.

The dual of the capacitated assignment problem is `sum_i max_j (s[i, j] - u_j) + sum_j c_j u_j`. Replacing the
maximum by `tau * logsumexp(. / tau)` makes it smooth; following its minimum while the temperature `tau` goes down leads
to prices at which rounding leaves only a few datapoints to move. Nothing here needs to be exact: the repair is. With
several experts for a datapoint, the sum of its largest stands in the place of the maximum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._shares import shares

_COOLING = 4.0  # the temperature falls by this factor
_NEAR = 6.0  # the temperature falls once the Newton step moves no price difference by more than this many `tau`
_DAMPING = 1.5  # a step far beyond that is cut to this many `tau` times the logarithm of its length
_MAX_PASSES = 48
_TINY = 1e-30
_SMALL = 2**17  # scores; below, rows are reduced from the side of the experts, which is faster while all fits the cache


class Search(NamedTuple):
    """Where the search for prices stands."""

    prices: Array  # (k,)
    tau: Array  # () temperature that belongs to them
    undecided: Array  # () datapoints in question at the last temperature: undecided ones, or at overfull experts
    passes: Array  # () passes over the scores


def start_at(prices: Array, tau: Array) -> Search:
    """A search that has not begun."""
    return Search(prices, tau, jnp.full((), jnp.inf, prices.dtype), jnp.zeros((), jnp.int32))


def cool(
    scores: Array,
    places: Array,
    start: Search,
    *,
    full: bool,
    enough: Array | float,
    coldest: Array,
    each: int | None = None,
) -> Search:
    """Follow the minimum of the smoothed dual to lower temperatures, until at most `enough` datapoints are in question.

    `places` `(k,)` is the room at every expert, and `full` says that all of it is needed; else prices are at least 0.
    Stops at the temperature `coldest`, too. `each` is the number of experts of a datapoint, None for one.
    """
    k = scores.shape[1]
    places = places.astype(scores.dtype)
    total = jnp.sum(places)
    most = start.passes + _MAX_PASSES
    own = jnp.eye(k, dtype=bool)
    rows, experts = (scores.T, 0) if scores.size <= _SMALL and each is None else (scores, 1)

    def wishes(prices: Array, tau: Array) -> tuple[Array, Array]:
        """A matrix whose off-diagonal entries tie the experts together in the curvature; the loads expected of them."""
        shifted = (rows - jnp.expand_dims(prices, 1 - experts)) / tau
        if each is not None:
            weights = shares(shifted, each)
            loose = weights * (1 - weights)
            # The thresholds follow the prices: what is left of the curvature when they are eliminated.
            apart = loose * jax.lax.rsqrt(jnp.maximum(jnp.sum(loose, axis=1, keepdims=True), _TINY))
            return jnp.matmul(apart.T, apart, precision=jax.lax.Precision.HIGHEST), jnp.sum(weights, axis=0)
        weights = jnp.exp(shifted - jnp.max(shifted, axis=experts, keepdims=True))
        probs = weights / jnp.sum(weights, axis=experts, keepdims=True)
        # The loads come from it, which say when to stop: accelerators would cut its inputs to 7 or 10 bits of mantissa.
        both = jax.lax.dot_general(
            probs, probs, (((1 - experts,), (1 - experts,)), ((), ())), precision=jax.lax.Precision.HIGHEST
        )
        return both, jnp.sum(both, axis=1)

    def evaluate(prices: Array, tau: Array) -> tuple[Array, Array]:
        """Newton step in multiples of `tau`, and the number of datapoints in question."""
        both, loads = wishes(prices, tau)
        # The curvature is a graph Laplacian; its diagonal is summed up, where a difference would lose all digits.
        links = jnp.where(own, 0, both)
        degree = jnp.sum(links, axis=1)
        surplus = loads - places
        # Prices are only defined up to a constant, which this fixes; the small ridge covers idle experts.
        gauge = total / k**2
        if not full:
            # An expert of price 0 with room stays out of it; the constant is fixed as soon as there is one.
            bound = (prices <= 0) & (surplus <= 0)
            surplus = jnp.where(bound, 0, surplus)
            gauge = jnp.where(jnp.any(bound), 0, gauge)
            outside = bound[:, None] | bound
            links = jnp.where(outside, 0, links)
            gauge = jnp.where(outside, 0, gauge)
        hessian = jnp.where(own, degree + 1e-6 * total / k, -links) + gauge
        return cho_solve(cho_factor(hessian), surplus), jnp.sum((degree + jnp.abs(surplus)) / 2)

    def advance(state: Search) -> Search:
        step, undecided = evaluate(state.prices, state.tau)
        far = jnp.max(jnp.abs(2 * step))
        near = far <= _NEAR
        # The curvature of a sum of exponentials changes over a distance of tau: a longer step would overshoot.
        length = jnp.where(near, 1, jnp.minimum(1, _DAMPING * jnp.log1p(far) / far))
        usable = jnp.isfinite(far)
        prices = jnp.where(usable, state.prices + length * state.tau * step, state.prices)
        if not full:
            prices = jnp.maximum(prices, 0)
            prices = prices - jnp.min(prices)
        tau = jnp.where(near & (undecided > enough), state.tau / _COOLING, state.tau)
        return Search(prices, tau, undecided, jnp.where(usable, state.passes + 1, most))

    def unfinished(state: Search) -> Array:
        return (state.undecided > enough) & (state.tau > coldest) & (state.passes < most)

    return jax.lax.while_loop(unfinished, advance, vary_like((scores, places, start), start))
