"""A maximum by Newton's method, damped where the function is not concave or the step does not improve it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._derivatives import Expansion

_LONGEST = 10.0  # of a step, in any coordinate
_CLOSE = 1e-5  # the gain that a full step still promises, when to stop
_MAX_EVALUATIONS = 80


class _State(NamedTuple):
    point: Array
    here: Expansion
    beside: Any
    damping: Array
    gain: Array
    evaluations: Array


def nothing_yet(start: Array) -> Expansion:
    """An expansion at `start` `(d,)` that any other one is better than, and from which no step leads away."""
    return Expansion(jnp.full_like(start[0], -jnp.inf), jnp.zeros_like(start), -jnp.diag(jnp.ones_like(start)))


def maximise(
    function: Callable[[Array], tuple[Expansion, Any]], start: Array, beside: Any
) -> tuple[Array, Expansion, Any]:
    """A local maximum close to `start` `(d,)`, and what the function returns there.

    That is its expansion, and something beside, which is `beside` until there is a better point than none. In
    `jax.shard_map`, `start` has to vary over every axis of the mesh over which what `function` closes over does.
    """
    eye = jnp.eye(start.shape[0], dtype=start.dtype)

    def advance(state: _State) -> _State:
        curvature = state.damping * eye - state.here.hessian
        factor = jax.lax.linalg.cholesky(curvature)
        step = state.here.gradient[:, None]
        for transposed in (False, True):
            step = jax.lax.linalg.triangular_solve(factor, step, left_side=True, lower=True, transpose_a=transposed)
        step = step[:, 0]
        step = step * jnp.minimum(1, _LONGEST / jnp.maximum(jnp.max(jnp.abs(step)), 1e-30))
        definite = jnp.all(jnp.isfinite(step))
        point = state.point + jnp.where(definite, step, 0)
        there, beside = function(point)
        # Rounding of the value must not turn a good step down.
        slack = 8 * jnp.finfo(start.dtype).eps * jnp.abs(there.value)
        better = definite & (there.value + slack >= state.here.value) & jnp.isfinite(there.value)
        point, here, beside = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (point, there, beside),
            (state.point, state.here, state.beside),
        )
        eased = jnp.where(state.damping > 1e-4, state.damping / 10, 0)
        return _State(
            point=point,
            here=here,
            beside=beside,
            damping=jnp.where(better, eased, jnp.maximum(10 * state.damping, 1e-3)),
            gain=jnp.where(better & (state.evaluations > 0), jnp.abs(jnp.sum(step * state.here.gradient)), state.gain),
            evaluations=state.evaluations + 1,
        )

    def unfinished(state: _State) -> Array:
        stuck = state.damping > 1e12
        return ((state.gain > _CLOSE) | (state.damping > 0)) & ~stuck & (state.evaluations < _MAX_EVALUATIONS)

    first = _State(
        point=start,
        here=nothing_yet(start),  # the first step is none
        beside=beside,
        damping=jnp.zeros((), start.dtype),
        gain=jnp.full((), jnp.inf, start.dtype),
        evaluations=jnp.zeros((), jnp.int32),
    )
    last = jax.lax.while_loop(unfinished, advance, vary_like(start, first))
    return last.point, last.here, last.beside
