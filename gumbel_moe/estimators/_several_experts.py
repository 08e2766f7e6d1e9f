"""The score-function estimator for datapoints that have several experts."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_experts
from gumbel_moe.estimators._gradient_only import gradient_only
from gumbel_moe.routing import Routing


def several_experts_terms(
    routing: Routing, losses: Array, baseline: Array, pairs: bool
) -> tuple[Array, Array, Array | float]:
    """For a routing `(n, m)` and losses that are 0 where not kept: the losses by weight, the score terms `(n,)` and
    what a baseline `(n, k)` adds; `baseline` is of a shape that `score_function_loss` allows.
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
    if pairs and routing.expert.shape[1] > 1:
        residual = compared(weight, residual)
    score = jnp.sum(weight * residual * gradient_only(routing.log_prob), axis=1)
    return jnp.sum(weight * losses, axis=1), score, added


def compared(weight: Array, residual: Array) -> Array:
    r"""`(n, m)` what stands for the losses in the sum over pairs.

    $\sum_{j < l} w_j w_l (r_j - r_l) (\nabla \log p_j - \nabla \log p_l) =
    \sum_j w_j \big( \sum_l w_l (r_j - r_l) \big) \nabla \log p_j$.
    """
    total = jnp.sum(weight, axis=1, keepdims=True)
    return total * residual - jnp.sum(weight * residual, axis=1, keepdims=True)
