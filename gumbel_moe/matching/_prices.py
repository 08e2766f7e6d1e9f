"""Dual prices by Newton's method on the entropy-smoothed dual: a warm start for the exact repair.

The dual of the capacitated assignment problem is `sum_i max_j (s[i, j] - u_j) + sum_j c_j u_j`. Replacing the
maximum by `tau * logsumexp(. / tau)` makes it smooth; following its minimum while the temperature `tau` goes down leads
to prices at which rounding leaves only a few datapoints to move. Nothing here needs to be exact: the repair is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

_COOLING = 8.0  # the temperature falls by this factor once the smoothed load is near the capacities
_NEAR = 0.1  # "near": at most this fraction of the places is held by the wrong expert
_TOO_FAR = 0.25  # a trial with more than this fraction misplaced is rejected, unless it improves on a worse one
_COLDEST = 1e-6  # last temperature, relative to the spread of the scores
_MAX_PASSES = 32  # passes over the scores, rejected steps included


class _State(NamedTuple):
    prices: Array  # (k,) the accepted iterate
    step: Array  # (k,) Newton direction from there
    length: Array  # () fraction of the step to try next
    imbalance: Array  # () misplaced fraction at the accepted iterate
    tau: Array  # () temperature of the accepted iterate
    cooling: Array  # () factor to cool by in the next trial
    best: Array  # (k,) prices whose rounding left the least excess so far
    best_excess: Array  # ()
    undecided: Array  # () expected number of datapoints not at their best expert at this temperature
    passes: Array  # ()


def warm_prices(scores: Array, capacity: Array, spare: Array) -> tuple[Array, Array]:
    """Prices `(k,)` near the minimum of the dual, and the number of passes over the scores they took.

    `spare = sum(capacity) - n` place-holders of score 0 fill the free places: one row of that weight.
    """
    k = scores.shape[1]
    dtype = scores.dtype
    places = capacity.astype(dtype)
    spare = spare.astype(dtype)
    total = jnp.sum(places)
    start, spread = _centre_and_spread(scores)
    start = jnp.where(spare > 0, jnp.maximum(start, 0), start)
    enough = max(1, k // 2)

    def evaluate(prices: Array, tau: Array) -> tuple[Array, Array, Array, Array]:
        shifted = (scores - prices) / tau
        top = jnp.max(shifted, axis=1, keepdims=True)
        probs = jnp.exp(shifted - top)
        norm = jnp.sum(probs, axis=1, keepdims=True)
        probs = probs / norm
        holders = spare * jax.nn.softmax(-prices / tau)
        load = jnp.sum(probs, axis=0) + holders
        cross = probs.T @ probs + jnp.outer(holders, holders) / jnp.maximum(spare, 1)
        rounded = jnp.sum(shifted >= top, axis=0).astype(dtype)
        excess = jnp.sum(jnp.maximum(rounded - places, 0))
        # Prices are only defined up to a constant; the rank-one term fixes it, the small ridge covers idle experts.
        hessian = jnp.diag(load + 1e-6 * total) - cross + total / k**2
        step = jnp.linalg.solve(hessian, load - places) * tau
        undecided = jnp.sum(1 - 1 / norm)
        return step, jnp.sum(jnp.abs(load - places)) / (2 * total), excess, undecided

    def advance(state: _State) -> _State:
        trial = state.prices + state.length * state.step
        tau = state.tau / state.cooling
        step, imbalance, excess, undecided = evaluate(trial, tau)
        usable = jnp.all(jnp.isfinite(step))
        accept = usable & (imbalance <= jnp.maximum(2 * state.imbalance, _TOO_FAR))
        # A rejected trial cooled too fast, or, when it hardly cooled, stepped too far.
        gently = jnp.sqrt(state.cooling)
        shorten = gently < 1.2
        improved = usable & (excess < state.best_excess)
        return _State(
            prices=jnp.where(accept, trial, state.prices),
            step=jnp.where(accept, step, state.step),
            length=jnp.where(accept, 1.0, jnp.where(shorten, state.length / 4, state.length)).astype(dtype),
            imbalance=jnp.where(accept, imbalance, state.imbalance),
            tau=jnp.where(accept, tau, state.tau),
            cooling=jnp.where(accept, jnp.where(imbalance < _NEAR, _COOLING, 1.0), gently).astype(dtype),
            best=jnp.where(improved, trial, state.best),
            best_excess=jnp.where(improved, excess, state.best_excess),
            undecided=jnp.where(accept, undecided, state.undecided),
            passes=state.passes + 1,
        )

    def unfinished(state: _State) -> Array:
        return (
            (state.best_excess > enough)
            & (state.undecided > enough)
            & (state.tau > _COLDEST * spread)
            & (state.length > 1e-3)
            & (state.passes < _MAX_PASSES)
        )

    first = _State(
        prices=start,
        step=jnp.zeros(k, dtype),
        length=jnp.ones((), dtype),
        imbalance=jnp.full((), jnp.inf, dtype),
        tau=spread,
        cooling=jnp.ones((), dtype),
        best=start,
        best_excess=jnp.full((), jnp.inf, dtype),
        undecided=jnp.full((), jnp.inf, dtype),
        passes=jnp.zeros((), jnp.int32),
    )
    last = jax.lax.while_loop(unfinished, advance, first)
    return last.best, last.passes


def _centre_and_spread(scores: Array) -> tuple[Array, Array]:
    """Mean score of every expert, and how far the best stands above the average; forbidden pairs left out."""
    allowed = jnp.isfinite(scores)
    known = jnp.where(allowed, scores, 0)
    centre = jnp.sum(known, axis=0) / jnp.maximum(jnp.sum(allowed, axis=0, dtype=scores.dtype), 1)
    rest = jnp.where(allowed, scores - centre, 0)
    top = jnp.max(jnp.where(allowed, rest, -jnp.inf), axis=1)
    average = jnp.sum(rest, axis=1) / jnp.maximum(jnp.sum(allowed, axis=1, dtype=scores.dtype), 1)
    return centre, jnp.mean(top - average)
