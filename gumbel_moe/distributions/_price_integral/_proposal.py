"""A density over prices to draw from: normal or Student-t, in coordinates in which the integrand looks like one."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.distributions._price_integral._chart import Coordinates, log_gauge, to_shift
from gumbel_moe.distributions._price_integral._integrand import Integrand, log_integrand
from gumbel_moe.distributions._price_integral._truncated_normal import HALF_LOG_TWO_PI

_FREEDOM = 10  # degrees of freedom of the heavy-tailed proposal


class Proposal(NamedTuple):
    """Normal or Student-t around `mean`."""

    coordinates: Coordinates
    mean: Array  # (k,)
    factor: Array  # (k, k), its square is the covariance
    log_det: Array  # () logarithm of the factor's determinant
    heavy: Array  # () bool: Student-t


def log_density(integrand: Integrand, c: Coordinates, points: Array) -> Array:
    """The logarithm of what is integrated, gauge and volume element included, at coordinates `(draws, k)`."""
    shift, log_volume = to_shift(c, points)
    known = log_volume + log_gauge(integrand.problem, c, shift)
    # Where the coordinates overflow, the integrand is 0.
    finite = jnp.isfinite(known) & jnp.all(jnp.isfinite(shift), axis=1)
    shift, known = jnp.where(finite[:, None], shift, 0), jnp.where(finite, known, -jnp.inf)
    shift, known = jax.lax.stop_gradient((shift, known))
    return log_integrand(integrand, shift) + known


def points_at(proposal: Proposal, standard: Array) -> Array:
    """Coordinates `(..., k)` at that many standard deviations from the mean."""
    return proposal.mean + jnp.matmul(standard, proposal.factor.T, precision="highest")


def log_pairs(integrand: Integrand, proposal: Proposal, key: Array, pairs: int) -> Array:
    """Log-weights of antithetic pairs `(pairs,)`, each the mean of its two."""
    standard, log_proposal = draw_pairs(proposal, key, pairs)
    points = points_at(proposal, standard).reshape(2 * pairs, -1)
    values = log_density(integrand, proposal.coordinates, points).reshape(pairs, 2)
    return mean_of_pairs(weights(values, log_proposal))


def weights(values: Array, log_proposal: Array) -> Array:
    """Log-weights `(pairs, 2)`; what overflows counts nothing."""
    log_weights = values - log_proposal[:, None]
    return jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)


def mean_of_pairs(log_weights: Array) -> Array:
    """Log-weights `(pairs,)`, each the mean of the two of a pair."""
    return jnp.logaddexp(log_weights[:, 0], log_weights[:, 1]) - math.log(2)


def draw_pairs(proposal: Proposal, key: Array, pairs: int) -> tuple[Array, Array]:
    """Antithetic pairs `(pairs, 2, k)` in standard deviations, and the log of their density `(pairs,)`."""
    k, dtype = proposal.mean.shape[0], proposal.mean.dtype
    normal, others = jnp.split(jax.random.normal(key, (pairs, k + _FREEDOM), dtype), [k], axis=1)
    chi_square = jnp.sum(others**2, axis=1)
    standard = jnp.where(proposal.heavy, normal / jnp.sqrt(chi_square / _FREEDOM)[:, None], normal)
    square = jnp.sum(standard**2, axis=1)
    half = _FREEDOM / 2
    constant = math.lgamma(half + k / 2) - math.lgamma(half) - k / 2 * math.log(_FREEDOM * math.pi)
    student = constant - (half + k / 2) * jnp.log1p(square / _FREEDOM)
    log_standard = jnp.where(proposal.heavy, student, -0.5 * square - k * HALF_LOG_TWO_PI)
    return jnp.stack([standard, -standard], axis=1), log_standard - proposal.log_det
