"""A Student-t fitted to the mass of the integrand, by draws from ever better ones (cross-entropy method).

For integrands without one clear mode, such as the plateaus of an improbable assignment under sharp logits. The first
draws are spread widely; weights are tempered so that enough of them count.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._proposal import Proposal, mean_of_pairs

_BROAD = 4.0  # standard deviations, in all coordinates, of what a search for the mass starts from
_USED = 1 / 8  # of the draws: effective sample size that the search keeps by tempering its weights
_FOUND = 0.3  # of the draws: effective sample size at which it ends


class Fit(NamedTuple):
    """Proposals are flat."""

    next: Array
    best: Array
    pairs: Array  # log-weights of the best one's pairs
    effective: Array  # its effective sample size


def widely(proposal: Proposal) -> Proposal:
    """What the search starts from, in the coordinates of another proposal."""
    mean = proposal.mean
    factor = jnp.diag(jnp.full_like(mean, _BROAD))
    log_det = jnp.full_like(mean[0], mean.shape[0] * math.log(_BROAD))
    return proposal._replace(factor=factor, log_det=log_det, heavy=jnp.ones_like(proposal.heavy))


def fitted(fit: Fit, unravel: Callable[[Array], Proposal], points: Array, log_weights: Array) -> tuple[Fit, Array]:
    """The next proposal, from points `(draws, k)` of the last one and log-weights `(pairs, 2)`; and whether to end."""
    last, flat = unravel(fit.next), log_weights.reshape(-1)
    flat = flat - jnp.max(flat)
    effective = _effective(flat)
    better = effective > fit.effective
    share = jax.nn.softmax(_tempered(flat, effective) * flat)
    mean = share @ points
    scatter = (points - mean).T @ (share[:, None] * (points - mean))
    # Few effective draws say little about a covariance: the old one is kept in part.
    trust = 1 / (1 + points.shape[1] * jnp.sum(share**2))
    covariance = trust * scatter + (1 - trust) * last.factor @ last.factor.T
    covariance = covariance + 1e-4 * jnp.eye(points.shape[1], dtype=mean.dtype)
    factor = jax.lax.linalg.cholesky(covariance, symmetrize_input=False)
    sound = jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.isfinite(mean))
    new = last._replace(mean=mean, factor=factor, log_det=jnp.sum(jnp.log(jnp.diag(factor))))
    found = Fit(
        next=ravel_pytree(new)[0],
        best=jnp.where(better, fit.next, fit.best),
        pairs=jnp.where(better, mean_of_pairs(log_weights), fit.pairs),
        effective=jnp.where(better, effective, fit.effective),
    )
    return found, ~sound | (effective > _FOUND * flat.shape[0])


def _effective(log_weights: Array) -> Array:
    """Effective sample size, of log-weights whose largest is 0."""
    weight = jnp.exp(log_weights)
    return jnp.sum(weight) ** 2 / jnp.sum(weight**2)


def _tempered(log_weights: Array, effective: Array) -> Array:
    """The largest power, at most 1, at which the weights keep an effective sample size of `_USED`."""
    wanted = _USED * log_weights.shape[0]

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        enough = _effective(middle * log_weights) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.ones((), log_weights.dtype)
    low, _ = jax.lax.fori_loop(0, 20, halve, vary_like(log_weights, (0 * one, one)))
    return jnp.where(effective >= wanted, one, low)
