"""The score-function estimator for datapoints that have several experts."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_experts
from gumbel_moe.estimators._gradient_only import gradient_only
from gumbel_moe.routing import Routing


def several_experts_terms(
    routing: Routing, losses: Array, baseline: Array, pair_weight: Array | None
) -> tuple[Array, Array, Array | float]:
    """For a routing `(n, m)` and losses that are 0 where not kept: the losses by weight, the score terms `(n,)` and
    what a baseline `(n, k)` adds; `baseline` is of a shape that `score_function_loss` allows. With the weights of pairs
    the score compares a datapoint's experts with each other.
    """
    stop = jax.lax.stop_gradient
    weight, added = stop(routing.weight), 0.0
    if baseline.ndim == 2:
        baseline = jnp.where(routing.mask[:, None], baseline, 0)
        added = jnp.sum(baseline * gradient_only(jnp.exp(routing.log_probs)), axis=1)
        baseline = at_experts(baseline, routing.expert)
    elif baseline.ndim == 1:
        baseline = jnp.where(routing.mask, baseline, 0)[:, None]
    residual = jnp.where(routing.kept, stop(losses) - baseline, 0)
    weighted = weight * residual if pair_weight is None else compared(stop(pair_weight), residual)
    return jnp.sum(weight * losses, axis=1), jnp.sum(weighted * gradient_only(routing.log_prob), axis=1), added


def compared(pair_weight: Array, residual: Array) -> Array:
    r"""`(n, m)` $\sum_l W_{jl} (r_j - r_l)$: what every expert is ahead of, or behind, the others of its datapoint."""
    return jnp.sum(pair_weight * (residual[:, :, None] - residual[:, None, :]), axis=2)
