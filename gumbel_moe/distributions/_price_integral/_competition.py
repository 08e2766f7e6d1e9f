"""Proposals compete in a pilot sample, and where all are poor another one is searched.

Everything here evaluates the integrand at some points and looks at the values: at the ends of the axes to see how far
it reaches, in the pilot samples, in every round of the search. These are rounds of one loop, so that the program holds
one integrand. Which kind a round is of is the same for all problems of a batch; how many there are is not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._in_loop import in_loop
from gumbel_moe.distributions._price_integral._integrand import Integrand
from gumbel_moe.distributions._price_integral._modes import Modes, modes
from gumbel_moe.distributions._price_integral._precision import better, log_mean_and_error
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._proposal import (
    Proposal,
    draw_pairs,
    log_density,
    mean_of_pairs,
    points_at,
    weights,
)
from gumbel_moe.distributions._price_integral._search import Fit, fitted, widely

_PAIRS = 16  # pairs of points at a time
_PILOT = 32  # pairs that decide between the proposals
_SEARCH = 128  # pairs of a round of the search
_POOR = 0.15  # nats: error of the pilot's best proposal at which another one is searched
_SEARCHED = 10  # experts; with more, draws that are spread widely do not find the mass
_FLATTEST = 0.1  # least curvature of the proposal, in coordinates in which it should be 1
_REACH = 2.5  # standard deviations at which a normal density has fallen by 3.1 nats,
_FALL = 1.0  # and the integrand must have fallen by this much, or the axis is widened
_EXTEND, _SAMPLE, _FIT = range(3)  # kinds of rounds
_MOST = {_EXTEND: 8, _SAMPLE: 1, _FIT: 24}  # rounds of a stage


class _State(NamedTuple):
    fit: Fit
    reach: Array  # (k, 2) standard deviations along the axes, up and down
    within: Array  # (k, 2) bool: there the integrand has fallen enough
    rounds: Array
    done: Array


class _Best(NamedTuple):
    proposal: Array
    estimate: Array
    error: Array


def keys_for(pilot: Array, search: Array) -> Array:
    """Those of all rounds: of the search, and last of the pilot sample."""
    rounds = jax.vmap(lambda number: jax.random.fold_in(search, number))(jnp.arange(_MOST[_FIT]))
    return jnp.concatenate([rounds, pilot[None]])


def best_proposal(problem: PriceProblem, keys: Array) -> tuple[Array, Callable[[Array], Proposal], Integrand]:
    """The one with the smallest error in a pilot sample, flat; what unravels it, and the integrand prepared for it.

    A normal one with all prices free, best when many datapoints are undecided, and a Student-t in a triangular basis,
    best for sharp logits and few datapoints. Where both are poor, a third one is fitted to the integrand. All of
    `problem` and the keys have to vary over the same axes of a mesh.
    """
    found, integrand = modes(problem)
    both = jax.vmap(laplace)(found, jnp.array([False, True]))
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], both))[1]
    flat = jax.vmap(lambda proposal: ravel_pytree(proposal)[0])(both)
    k = problem.load.shape[0]
    kinds, pairs, width = [_EXTEND, _SAMPLE] * 2, [k, _PILOT] * 2, -(-max(k, _PILOT) // _PAIRS) * _PAIRS
    if k <= _SEARCHED:
        kinds, pairs, width = [*kinds, _FIT], [*pairs, _SEARCH], _SEARCH

    def compete(carry: tuple[Array, _Best], index: Array) -> tuple[tuple[Array, _Best], None]:
        last, best = carry
        kind, count = jnp.array(kinds)[index], jnp.array(pairs)[index]
        candidate = jnp.minimum(index // 2, 1)
        start = jnp.where(kind == _EXTEND, flat[candidate], last)
        start = jnp.where(kind == _FIT, ravel_pytree(widely(unravel(last)))[0], start)
        floor = found.value[candidate] - _FALL
        needed = (kind != _FIT) | ~(best.error < _POOR)
        kept = _rounds(integrand, unravel, start, kind, count, width, keys, floor, needed)
        estimate, error = log_mean_and_error(kept.pairs, count)
        new = _Best(kept.best, estimate, error)
        first = better(jnp.stack([best.estimate, estimate]), jnp.stack([best.error, error])) == 0
        first = first | (kind == _EXTEND)
        return (kept.best, jax.tree.map(lambda old, new: jnp.where(first, old, new), best, new)), None

    none = _Best(flat[0], jnp.full_like(found.value[0], jnp.nan), jnp.full_like(found.value[0], jnp.nan))
    (_, best), _ = jax.lax.scan(compete, vary_like(problem, (flat[0], none)), jnp.arange(len(kinds)))
    return best.proposal, unravel, integrand


def laplace(found: Modes, heavy: Array) -> Proposal:
    """Laplace's approximation at the mode."""
    curvature, axes = jnp.linalg.eigh(-found.hessian)
    scale = 1 / jnp.sqrt(jnp.maximum(curvature, _FLATTEST))
    return Proposal(found.coordinates, found.point, axes * scale, jnp.sum(jnp.log(scale)), heavy)


def _rounds(
    integrand: Integrand,
    unravel: Callable[[Array], Proposal],
    start: Array,
    kind: Array,
    count: Array,
    width: int,
    keys: Array,
    floor: Array,
    needed: Array,
) -> Fit:
    """All rounds of one stage, of `count` of `width` pairs each."""
    k = integrand.centre.shape[0]
    axes = jnp.pad(jnp.eye(k, dtype=start.dtype), ((0, width - k), (0, 0)))[:, None]

    def look(state: _State) -> _State:
        proposal = unravel(state.fit.next)

        def along_axes(_: None) -> tuple[Array, Array]:
            reach = jnp.pad(state.reach, ((0, width - k), (0, 0))) * jnp.array([1, -1], start.dtype)
            return vary_like(integrand, (axes * reach[..., None], jnp.zeros(width, start.dtype)))

        def drawn(_: None) -> tuple[Array, Array]:
            return draw_pairs(proposal, keys[jnp.where(kind == _SAMPLE, -1, state.rounds)], width)

        standard, log_proposal = jax.lax.cond(kind == _EXTEND, along_axes, drawn, None)
        points = points_at(proposal, standard)
        values = _values(integrand, unravel, state.fit.next, points, count)

        def extended() -> _State:
            within = state.within | ~(values[:k] > floor)
            reach = jnp.where(within, state.reach, 2 * state.reach)
            best = ravel_pytree(_widened(proposal, reach))[0]
            return state._replace(fit=state.fit._replace(best=best), reach=reach, within=within, done=jnp.all(within))

        def sampled() -> _State:
            pairs = mean_of_pairs(weights(values, log_proposal))
            return state._replace(fit=state.fit._replace(best=state.fit.next, pairs=pairs))

        def improved() -> _State:
            fit, done = fitted(state.fit, unravel, points.reshape(-1, k), weights(values, log_proposal))
            return state._replace(fit=fit, done=done)

        ways = [extended, sampled, improved][: 3 if k <= _SEARCHED else 2]
        state = jax.lax.switch(kind, [lambda way=way: vary_like(integrand, way()) for way in ways])
        return state._replace(rounds=state.rounds + 1)

    nothing = jnp.full(width, -jnp.inf, start.dtype)
    first = _State(
        fit=Fit(start, start, nothing, jnp.zeros_like(start[0])),
        reach=jnp.full((k, 2), _REACH, start.dtype),
        within=jnp.zeros((k, 2), bool),
        rounds=jnp.zeros((), jnp.int32),
        done=~needed,
    )
    most = jnp.array([_MOST[kind] for kind in range(3)])[kind]
    state = jax.lax.while_loop(lambda s: ~s.done & (s.rounds < most), look, vary_like(integrand, first))
    return state.fit


def _values(
    integrand: Integrand, unravel: Callable[[Array], Proposal], flat: Array, points: Array, pairs: Array
) -> Array:
    """The logarithm of the integrand at the first `pairs` of points `(pairs, 2, k)`, in portions; `-inf` elsewhere."""
    k = points.shape[-1]

    def portion(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        done, values = carry
        part = jax.lax.dynamic_slice_in_dim(points, done, _PAIRS).reshape(-1, k)
        new = log_density(integrand, unravel(in_loop(flat, done)).coordinates, part).reshape(-1, 2)
        return done + _PAIRS, jax.lax.dynamic_update_slice_in_dim(values, new, done, axis=0)

    start = vary_like(integrand, (jnp.zeros((), pairs.dtype), jnp.full(points.shape[:-1], -jnp.inf, points.dtype)))
    return jax.lax.while_loop(lambda carry: carry[0] < pairs, portion, start)[1]


def _widened(proposal: Proposal, reach: Array) -> Proposal:
    """Moved and stretched along its axes to where the integrand ends."""
    up, down = reach.T
    stretch = (up + down) / (2 * _REACH)
    return proposal._replace(
        mean=points_at(proposal, (up - down) / 2),
        factor=proposal.factor * stretch,
        log_det=proposal.log_det + jnp.sum(jnp.log(stretch)),
    )
