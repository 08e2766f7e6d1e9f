"""The integral by importance sampling around its mode, with a standard error."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._competition import best_proposal
from gumbel_moe.distributions._price_integral._competition import keys_for as proposal_keys
from gumbel_moe.distributions._price_integral._in_loop import in_loop
from gumbel_moe.distributions._price_integral._integrand import SMALL, integrand_around
from gumbel_moe.distributions._price_integral._precision import log_mean_and_error
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._proposal import log_pairs

_PAIRS = 16  # antithetic pairs at a time


def num_chunks(num_draws: int) -> int:
    """Of how many pairs at a time a sample of at least so many draws is made."""
    return -(-num_draws // (2 * _PAIRS))


def keys_for(key: Array, num_draws: int) -> tuple[Array, Array]:
    """The keys of the rounds that find the proposal, and of the chunks of the sample, whose draws are others."""
    pilot_key, search_key, key = jax.random.split(key, 3)
    return proposal_keys(pilot_key, search_key), jax.random.split(key, num_chunks(num_draws))


def by_sampling(problem: PriceProblem, keys: tuple[Array, Array], target_error: float | None) -> tuple[Array, Array]:
    """`log P` and its standard error, in nats, from at most as many price vectors in antithetic pairs as have keys."""
    problem, keys = vary_like((problem, keys), (problem, keys))
    flat, unravel, integrand = best_proposal(jax.lax.stop_gradient(problem), keys[0])
    if problem.rows.size > SMALL:
        integrand = integrand_around(problem, integrand.centre)
    integrand = integrand._replace(problem=problem)

    @jax.checkpoint
    def draw(key: Array) -> Array:
        return log_pairs(integrand, unravel(in_loop(flat, jax.random.key_data(key))), key, _PAIRS)

    pairs, count = _stream(draw, keys[1], target_error)
    return log_mean_and_error(pairs, count)


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
        error = log_mean_and_error(pairs.reshape(-1), jnp.maximum(count, 1))[1]
        enough = (count > 0) & (error <= target_error)
        chunk = jax.lax.cond(enough, lambda _: vary_like(key, unused), draw, key)
        pairs = pairs.at[index].set(jax.lax.stop_gradient(chunk))
        return (pairs, jnp.where(enough, count, count + chunk.size)), chunk

    start = vary_like(keys, (jnp.full((chunks, *width.shape), -jnp.inf, width.dtype), jnp.zeros((), jnp.int32)))
    (_, count), pairs = jax.lax.scan(advance, start, (jnp.arange(chunks), keys))
    return pairs.reshape(-1), count
