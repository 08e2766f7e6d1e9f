"""A floor under the probabilities that are drawn from, and what it does to the weights.

Defensive importance sampling: T. Hesterberg, *Weighted Average Importance Sampling and Defensive Mixture
Distributions*, Technometrics 37 (1995).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_expert


def check_floor(floor: Any) -> float:
    """`floor` as a Python float, at least 0 and below 1."""
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be at least 0 and below 1, got {floor!r}")
    return float(floor)


def floored(logits: Array, floor: float) -> Array:
    r"""Logits $\log((1 - \epsilon) p_{ij} + \epsilon / k)$ to draw from, a constant for the gradient.

    Of `k`, only those allowed count: what is forbidden stays so.
    """
    logits = jax.lax.stop_gradient(logits)
    if floor == 0:
        return logits
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    forbidden = jnp.isneginf(log_probs)
    allowed = jnp.sum(~forbidden, axis=-1, keepdims=True).astype(logits.dtype)
    mixed = jnp.logaddexp(jnp.log1p(-floor) + log_probs, jnp.log(floor) - jnp.log(jnp.maximum(allowed, 1)))
    return jnp.where(forbidden, log_probs, mixed)


def reweighted(weight: Array, logits: Array, drawn_from: Array, expert: Array, floor: float) -> Array:
    """`weight` of a draw from floored logits, as one of a draw for `logits`: times $p / p'$ at the expert."""
    if floor == 0:
        return weight
    log_p, log_q = (jax.nn.log_softmax(a, axis=-1) for a in (jax.lax.stop_gradient(logits), drawn_from))
    # A weight of 0 is that of nobody, whose ratio may be anything.
    return jnp.where(weight == 0, 0, weight * jnp.exp(at_expert(log_p, expert) - at_expert(log_q, expert)))
