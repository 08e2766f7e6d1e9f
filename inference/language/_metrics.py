"""What a step or an evaluation says of its routings."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import ExpertChoiceRouting, load


def mean_entropy(log_probs: Array) -> Array:
    """`()` nats, of probabilities `(..., k)`."""
    return -jnp.mean(jnp.sum(jnp.where(jnp.isneginf(log_probs), 0, jnp.exp(log_probs) * log_probs), axis=-1))


def traffic(routing: Any) -> dict[str, Array]:
    r"""Scalars, means over the layers but for the largest violation; of routings of all layers, stacked.

    `entropy` of the routers' probabilities in nats; `skipped`, the fraction of tokens that no expert handles;
    `max_violation`, by how much the fullest expert of any layer is above its share, relative to it; and
    `effective_sample_size`, $(\sum_i w_i)^2 / (n \sum_i w_i^2)$ of the draws' importance weights, 1 where all are
    alike.
    """
    if routing is None:
        return {}
    log_probs = routing.log_probs
    loads = jax.vmap(load)(routing).astype(jnp.float32)
    found = {
        "entropy": mean_entropy(log_probs),
        "max_violation": jnp.max(loads) / (log_probs.shape[1] / log_probs.shape[2]) - 1,
    }
    if isinstance(routing, ExpertChoiceRouting):
        handled = jax.vmap(lambda layer: layer.experts_per_datapoint)(routing)
        return {**found, "skipped": jnp.mean(handled == 0)}
    weight = routing.weight
    size = jnp.sum(weight, axis=1) ** 2 / (weight.shape[1] * jnp.maximum(jnp.sum(weight**2, axis=1), 1e-30))
    return {**found, "skipped": jnp.mean(~routing.kept), "effective_sample_size": jnp.mean(size)}
