"""A density over prices to draw from: normal or Student-t, in coordinates in which the integrand looks like one."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._coordinates import Coordinates, expand_in, log_gauge, to_shift
from gumbel_moe.distributions._price_integral._integrand import Integrand, integrand_around, log_integrand
from gumbel_moe.distributions._price_integral._newton import maximise
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._truncated_normal import HALF_LOG_TWO_PI

_FLATTEST = 0.1  # least curvature of the proposal, in coordinates in which it should be 1
_REACH = 2.5  # standard deviations at which a normal density has fallen by 3.1 nats,
_FALL = 1.0  # and the integrand must have fallen by this much, or the axis is widened
_MAX_WIDENINGS = 8
_FREEDOM = 10  # degrees of freedom of the heavy-tailed proposal
_BROAD = 4.0  # standard deviations, in all coordinates, of what a search for the mass starts from
_SEARCH_PAIRS = 128
_USED = 1 / 8  # of the draws: effective sample size that the search keeps by tempering its weights
_FOUND = 0.3  # of the draws: effective sample size at which it ends
_MAX_ROUNDS = 24


class Proposal(NamedTuple):
    """Normal or Student-t around `mean`."""

    coordinates: Coordinates
    mean: Array  # (k,)
    factor: Array  # (k, k), its square is the covariance
    log_det: Array  # () logarithm of the factor's determinant
    heavy: Array  # () bool: Student-t


class _Search(NamedTuple):
    next: Proposal
    best: Proposal
    pairs: Array  # log-weights of the best one's pairs
    effective: Array  # its effective sample size
    rounds: Array
    done: Array


def laplace(problem: PriceProblem, c: Coordinates, heavy: Array) -> Proposal:
    """Laplace's approximation at the mode, widened along axes on which the integrand falls off too late."""
    integrand = integrand_around(problem, c.centre)
    start = vary_like((problem, c), jnp.zeros_like(c.centre))
    mode, there = maximise(lambda x: expand_in(problem, c, x), start)
    curvature, axes = jnp.linalg.eigh(-there.hessian)
    scale = 1 / jnp.sqrt(jnp.maximum(curvature, _FLATTEST))
    factor = axes * scale

    def extend(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        reach, done, rounds = carry
        points = mode + reach[:, None] * jnp.concatenate([factor.T, -factor.T])
        done = done | ~(log_density(integrand, c, points) > there.value - _FALL)
        return jnp.where(done, reach, 2 * reach), done, rounds + 1

    near = jnp.full(2 * mode.shape[0], _REACH, mode.dtype)
    carry = vary_like((problem, c), (near, jnp.zeros(near.shape, bool), jnp.zeros((), jnp.int32)))
    reach, _, _ = jax.lax.while_loop(lambda c: ~jnp.all(c[1]) & (c[2] < _MAX_WIDENINGS), extend, carry)
    up, down = jnp.split(reach, 2)
    scale = scale * (up + down) / (2 * _REACH)
    return Proposal(c, mode + factor @ ((up - down) / 2), axes * scale, jnp.sum(jnp.log(scale)), heavy)


def search(problem: PriceProblem, start: Proposal, key: Array, needed: Array) -> tuple[Proposal, Array]:
    """A Student-t fitted to the mass of the integrand, by draws from ever better ones (cross-entropy method).

    For integrands without one clear mode, such as the plateaus of an improbable assignment under sharp logits. The
    first draws are spread widely; weights are tempered so that enough of them count. Returns the best proposal and the
    log-weights of its pairs; where not `needed`, no draw is made and they are `-inf`.
    """
    integrand = integrand_around(problem, start.coordinates.centre)
    k = start.mean.shape[0]

    def fit(state: _Search) -> _Search:
        points, weights = draw_pairs(integrand, state.next, jax.random.fold_in(key, state.rounds), _SEARCH_PAIRS)
        effective = _effective(weights)
        better = effective > state.effective
        share = jax.nn.softmax(_tempered(weights) * weights)
        mean = share @ points
        scatter = (points - mean).T @ (share[:, None] * (points - mean))
        # Few effective draws say little about a covariance: the old one is kept in part.
        trust = 1 / (1 + k * jnp.sum(share**2))
        covariance = trust * scatter + (1 - trust) * state.next.factor @ state.next.factor.T
        factor = jnp.linalg.cholesky(covariance + 1e-4 * jnp.eye(k, dtype=mean.dtype))
        sound = jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.isfinite(mean))
        best, pairs = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (state.next, mean_of_pairs(weights)),
            (state.best, state.pairs),
        )
        return _Search(
            next=state.next._replace(mean=mean, factor=factor, log_det=jnp.sum(jnp.log(jnp.diag(factor)))),
            best=best,
            pairs=pairs,
            effective=jnp.where(better, effective, state.effective),
            rounds=state.rounds + 1,
            done=~sound | (effective > _FOUND * weights.shape[0]),
        )

    dtype = start.mean.dtype
    broad = start._replace(
        factor=_BROAD * jnp.eye(k, dtype=dtype),
        log_det=jnp.asarray(k * math.log(_BROAD), dtype),
        heavy=jnp.array(True),
    )
    nothing = jnp.full(_SEARCH_PAIRS, -jnp.inf, dtype)
    state = _Search(broad, broad, nothing, jnp.zeros((), dtype), jnp.zeros((), jnp.int32), ~needed)
    state = vary_like((problem, start, key, needed), state)
    state = jax.lax.while_loop(lambda s: ~s.done & (s.rounds < _MAX_ROUNDS), fit, state)
    return state.best, state.pairs


def _effective(log_weights: Array) -> Array:
    return 1 / jnp.sum(jax.nn.softmax(log_weights) ** 2)


def _tempered(log_weights: Array) -> Array:
    """The largest power, at most 1, at which the weights keep an effective sample size of `_USED`."""
    wanted = _USED * log_weights.shape[0]

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        enough = _effective(middle * log_weights) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.ones((), log_weights.dtype)
    low, _ = jax.lax.fori_loop(0, 20, halve, vary_like(log_weights, (0 * one, one)))
    return jnp.where(_effective(log_weights) >= wanted, one, low)


def log_density(integrand: Integrand, c: Coordinates, points: Array) -> Array:
    """The logarithm of what is integrated, gauge and volume element included, at coordinates `(draws, k)`."""
    shift, log_volume = to_shift(c, points)
    known = log_volume + log_gauge(integrand.problem, c, shift)
    # Where the coordinates overflow, the integrand is 0.
    finite = jnp.isfinite(known) & jnp.all(jnp.isfinite(shift), axis=1)
    shift, known = jnp.where(finite[:, None], shift, 0), jnp.where(finite, known, -jnp.inf)
    shift, known = jax.lax.stop_gradient((shift, known))
    return log_integrand(integrand, shift) + known


def draw_pairs(integrand: Integrand, proposal: Proposal, key: Array, pairs: int) -> tuple[Array, Array]:
    """Points `(2 pairs, k)`, first `mean + step`, then `mean - step`, and the log-weights of both."""
    step, log_proposal = _draw(proposal, key, pairs)
    points = proposal.mean + jnp.concatenate([step, -step])
    weights = log_density(integrand, proposal.coordinates, points) - jnp.concatenate([log_proposal, log_proposal])
    return points, jnp.where(jnp.isnan(weights), -jnp.inf, weights)


def mean_of_pairs(weights: Array) -> Array:
    """Log-weights `(pairs,)`, each the mean of the two of a pair."""
    plus, minus = jnp.split(weights, 2)
    return jnp.logaddexp(plus, minus) - math.log(2)


def _draw(proposal: Proposal, key: Array, pairs: int) -> tuple[Array, Array]:
    """Steps `(pairs, k)` from the mean, and the log of their density."""
    k, dtype = proposal.mean.shape[0], proposal.mean.dtype
    normal, others = jnp.split(jax.random.normal(key, (pairs, k + _FREEDOM), dtype), [k], axis=1)
    chi_square = jnp.sum(others**2, axis=1)
    standard = jnp.where(proposal.heavy, normal / jnp.sqrt(chi_square / _FREEDOM)[:, None], normal)
    square = jnp.sum(standard**2, axis=1)
    half = _FREEDOM / 2
    constant = math.lgamma(half + k / 2) - math.lgamma(half) - k / 2 * math.log(_FREEDOM * math.pi)
    student = constant - (half + k / 2) * jnp.log1p(square / _FREEDOM)
    log_standard = jnp.where(proposal.heavy, student, -0.5 * square - k * HALF_LOG_TWO_PI)
    return standard @ proposal.factor.T, log_standard - proposal.log_det
