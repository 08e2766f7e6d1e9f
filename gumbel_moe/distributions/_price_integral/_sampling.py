"""The integral by importance sampling around its mode, with a standard error."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._coordinates import Coordinates, coordinates
from gumbel_moe.distributions._price_integral._integrand import Integrand, integrand_around
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._proposal import (
    Proposal,
    draw_pairs,
    laplace,
    mean_of_pairs,
    search,
)

_PAIRS = 16  # antithetic pairs at a time
_PILOT = 32  # pairs that decide between the proposals
_POOR = 0.15  # nats: error of the pilot's best proposal at which another one is searched
_SEARCHED = 10  # experts; with more, draws that are spread widely do not find the mass
_BY_CHANCE = (0.1, 2.0)  # nats: by less, or by more, another estimate is never, or always, too much larger for chance


def by_sampling(problem: PriceProblem, key: Array, num_draws: int, target_error: float | None) -> tuple[Array, Array]:
    """`log P` and its standard error, in nats, from at most `num_draws` price vectors in antithetic pairs.

    Two proposals compete: a normal one with all prices free, best when many datapoints are undecided, and a Student-t
    in a triangular basis, best for sharp logits and few datapoints. Where both are poor, a third one is fitted to the
    integrand. The one with the smallest error in a pilot sample is used, on other draws.
    """
    fixed = jax.lax.stop_gradient(problem)
    pilot_key, search_key, key = jax.random.split(key, 3)

    def prepare(candidate: tuple[Coordinates, Array]) -> tuple[Proposal, tuple[Array, Array]]:
        proposal = laplace(fixed, *candidate)
        integrand = integrand_around(fixed, proposal.coordinates.centre)
        return proposal, _log_mean_and_error(_log_pairs(integrand, proposal, pilot_key, _PILOT))

    proposals, (estimates, errors) = jax.lax.map(prepare, (coordinates(fixed), jnp.array([False, True])))
    best = _better(estimates, errors)
    proposal = _pick(proposals, best)
    if problem.load.shape[0] <= _SEARCHED:
        found, pairs = search(fixed, _pick(proposals, 1), search_key, needed=~(errors[best] < _POOR))
        estimate, error = _log_mean_and_error(pairs)
        best = _better(jnp.stack([estimates[best], estimate]), jnp.stack([errors[best], error]))
        proposal = jax.tree.map(lambda old, new: jnp.where(best == 1, new, old), proposal, found)
    integrand = integrand_around(problem, proposal.coordinates.centre)
    draw = jax.checkpoint(lambda key: _log_pairs(integrand, proposal, key, _PAIRS))
    keys = vary_like((problem, proposal), jax.random.split(key, max(1, -(-num_draws // (2 * _PAIRS)))))
    pairs, count = _stream(draw, keys, target_error)
    return _log_mean_and_error(pairs, count)


def _pick(proposals: Proposal, index: Array | int) -> Proposal:
    return jax.tree.map(lambda leaf: leaf[index], proposals)


def _log_pairs(integrand: Integrand, proposal: Proposal, key: Array, pairs: int) -> Array:
    return mean_of_pairs(draw_pairs(integrand, proposal, key, pairs)[1])


def _stream(draw: Callable[[Array], Array], keys: Array, target_error: float | None) -> tuple[Array, Array]:
    """Log-weights of all chunks, `-inf` for those that the target made unnecessary, and how many were drawn."""
    if target_error is None:
        pairs = jax.lax.scan(lambda _, key: (None, draw(key)), None, keys)[1].reshape(-1)
        return pairs, jnp.asarray(pairs.size, jnp.int32)
    chunks, width = keys.shape[0], jax.eval_shape(draw, keys[0])
    unused = jnp.full(width.shape, -jnp.inf, width.dtype)

    def advance(seen: tuple[Array, Array], step: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        index, key = step
        pairs, count = seen
        error = _log_mean_and_error(pairs.reshape(-1), jnp.maximum(count, 1))[1]
        enough = (count > 0) & (error <= target_error)
        chunk = jax.lax.cond(enough, lambda _: vary_like(key, unused), draw, key)
        pairs = pairs.at[index].set(jax.lax.stop_gradient(chunk))
        return (pairs, jnp.where(enough, count, count + chunk.size)), chunk

    start = vary_like(keys, (jnp.full((chunks, *width.shape), -jnp.inf, width.dtype), jnp.zeros((), jnp.int32)))
    (_, count), pairs = jax.lax.scan(advance, start, (jnp.arange(chunks), keys))
    return pairs.reshape(-1), count


def _better(estimates: Array, errors: Array) -> Array:
    """The more precise of two proposals, unless the other one has found mass that it misses."""
    failed = jnp.isnan(estimates) | jnp.isnan(errors)
    estimates, errors = jnp.where(failed, -jnp.inf, estimates), jnp.where(failed, jnp.inf, errors)
    precise = jnp.argmin(errors)
    # However large its error, an estimate is too high by `d` nats with a probability of at most exp(-d) (Markov).
    by_chance = jnp.clip(5 * jnp.sqrt(jnp.sum(errors**2)), *_BY_CHANCE)
    missed = jnp.max(estimates) - estimates[precise] > by_chance
    return jnp.where(missed, jnp.argmax(estimates), precise)


def _log_mean_and_error(pairs: Array, count: Array | None = None) -> tuple[Array, Array]:
    """Logarithm of the mean weight over the first `count` pairs (all), and its standard error.

    The sample's own error is too small where it has missed the rarest weights. So twice what the farthest one that it
    has seen contributes is added, at least what one more pair of weight 0 would change; and where one weight makes up
    almost all, the error grows without bound.
    """
    total = jnp.asarray(pairs.size if count is None else count, pairs.dtype)
    log_mean = jax.nn.logsumexp(pairs) - jnp.log(total)
    off = jnp.exp(jax.lax.stop_gradient(pairs - log_mean)) / total - 1 / total
    off = jnp.where(jnp.arange(pairs.size) < total, off, 0)
    farthest = jnp.maximum(jnp.max(jnp.abs(off)), 0.5 / total)
    return log_mean, jnp.sqrt(jnp.sum(off**2) + 4 * farthest**2) / jnp.maximum(1 - farthest, 1 / total)
