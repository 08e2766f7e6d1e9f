"""The integrand at given prices: one by one at any distance, or many at once as matrix products."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.distributions._price_integral._derivatives import log_probabilities, minor, probabilities
from gumbel_moe.distributions._price_integral._problem import BARRED, PriceProblem

SMALL = 2048  # entries of the logits up to which the many are done one by one
_ELIMINATED = 4  # experts up to which the determinant is computed without any subtraction


class Integrand(NamedTuple):
    """A problem with the exponentials taken once, at the centre."""

    problem: PriceProblem
    centre: Array  # (k,)
    probs: Array  # (blocks, size, k) at the centre
    own: Array  # () log-probability of the assignment at the centre


def integrand_around(problem: PriceProblem, centre: Array) -> Integrand:
    """Prepare for price vectors not too far from `centre` `(k,)`."""
    return Integrand(problem, centre, *probabilities(problem, centre))


def log_integrand(integrand: Integrand, shift: Array) -> Array:
    """`log det L_F + sum_i log p[i, z_i]` `(draws,)` at prices `centre + shift`, shifts `(draws, k)`.

    `p(centre + shift)` is the centre's `p` times `exp(-shift)`, normalised: only `k` exponentials per price vector, and
    `O(n k)` operations. It reaches as far as the exponential does: beyond, the integrand counts as 0. A small problem,
    which can be spread more widely than that, is computed directly.
    """
    problem, centre, probs, own = integrand
    if probs.size <= SMALL:
        return jax.vmap(lambda step: log_integrand_at(problem, centre + step))(shift)
    draws, k = shift.shape
    least = jnp.min(shift, axis=1, keepdims=True)
    factor = jnp.exp(least - shift)
    norm = jnp.matmul(probs, factor.T, precision="highest") + (1 - problem.real)[..., None]
    within = jnp.all(norm > 1e4 * jnp.finfo(norm.dtype).tiny, axis=(0, 1))
    norm = jnp.where(within, norm, 1)
    per_row = jnp.log(norm) - problem.real[..., None] * least[:, 0]
    log_likelihood = own - jnp.sum(per_row, axis=(0, 1)) - jnp.matmul(shift, problem.load, precision="highest")
    shares = jnp.einsum("bij,bid->bjd", probs, 1 / norm, precision="highest")
    shares = jnp.matmul(problem.owner, shares.reshape(-1, k * draws), precision="highest").reshape(k, k, draws)
    rates = shares.transpose(2, 0, 1) * factor[:, None, :]
    value = log_likelihood + jnp.linalg.slogdet(minor(rates, ~problem.pinned))[1]
    return jnp.where(within, value, -jnp.inf)


def log_integrand_at(problem: PriceProblem, prices: Array) -> Array:
    """The same at one price vector `(k,)`, however far from the mode."""
    kept = ~problem.pinned
    if len(prices) > _ELIMINATED:
        probs, own = probabilities(problem, prices)
        rates = jnp.matmul(problem.owner, jnp.sum(probs, axis=1), precision="highest")
        return own + jnp.linalg.slogdet(minor(rates, kept))[1]
    log_probs, own = log_probabilities(problem, prices)
    per_block = jax.nn.logsumexp(jnp.where(problem.real[..., None] > 0, log_probs, BARRED), axis=1)
    log_rates = jax.nn.logsumexp(jnp.where(problem.owner[..., None] > 0, per_block, BARRED), axis=1)
    return own + _log_determinant(log_rates, kept)


def _log_determinant(log_rates: Array, kept: Array) -> Array:
    """That of `minor(exp(log_rates), kept)`, by eliminating one expert after the other as in a Markov chain.

    Every term is positive, so that nothing cancels: W. K. Grassmann, M. I. Taksar, D. P. Heyman, *Regenerative Analysis
    and Steady State Distributions for Markov Chains*, Operations Research 33 (1985). In logarithms nothing underflows.
    """
    log_det = jnp.zeros((), log_rates.dtype)
    for p in range(log_rates.shape[0]):
        others = jnp.arange(log_rates.shape[0]) != p
        log_leaving = jax.nn.logsumexp(jnp.where(others, log_rates[p], BARRED))
        log_det = log_det + jnp.where(kept[p], log_leaving, 0)
        through = jnp.logaddexp(log_rates, log_rates[:, p, None] + (log_rates[p] - log_leaving))
        log_rates = jnp.where(kept[p], jnp.where(others[:, None] & others, through, BARRED), log_rates)
    return log_det
