"""Draws of several experts for every datapoint: the largest of its perturbed logits, and their weights."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_experts, best_experts, keep_first, surplus_weights
from gumbel_moe._logits import centred

_TINY = -20.0  # of log-rates: 1 - exp(-x) is x to rounding where x is below exp(-20), in both float widths


def largest_perturbed(key: Array, logits: Array, number: int) -> tuple[Array, Array]:
    r"""Experts `(n, m)` drawn without replacement, and the logarithm `(n, m)` of $q$ at each.

    $q_{ij}$ is the probability that $j$ is drawn, given the noise of all other experts.
    """
    constant = centred(logits)
    perturbed = constant + jax.random.gumbel(key, logits.shape, logits.dtype)
    experts = best_experts(perturbed, number)
    k = logits.shape[1]
    next_best = (
        jax.lax.top_k(perturbed, number + 1)[0][:, -1:] if number < k else jnp.full_like(perturbed, -jnp.inf)[:, :1]
    )
    return experts, log_inclusion(at_experts(constant, experts) - next_best)


def log_inclusion(margin: Array) -> Array:
    r"""$\log P(a + G > \tau) = \log (1 - \exp(-e^{a - \tau}))$, with $G$ standard Gumbel, for margins $a - \tau$."""
    few = jnp.minimum(margin, _TINY)
    rate = jnp.exp(jnp.maximum(margin, _TINY))
    some = jnp.log(-jnp.expm1(-jnp.minimum(rate, 1)))
    many = jnp.log1p(-jnp.exp(-jnp.maximum(rate, 1)))
    return jnp.where(margin < _TINY, few - jnp.exp(few) / 2, jnp.where(rate < 1, some, many))


def inclusion_weights(logits: Array, log_q: Array, experts: Array) -> Array:
    """`p / q` at the experts `(n, m)`, with `p` the softmax of `logits`, a constant."""
    log_p = at_experts(jax.nn.log_softmax(jax.lax.stop_gradient(logits), axis=1), experts)
    return jnp.where(experts < logits.shape[1], jnp.exp(log_p - log_q), 0)


def keep_random(key: Array, experts: Array, present: Array | None, places: tuple[int, ...]) -> tuple[Array, Array]:
    """Who stays, `(n, m)`, where every expert keeps a random subset, and how many each of those stands for."""
    room = jnp.asarray(places, jnp.int32)
    queue = experts if present is None else jnp.where(present[:, None], experts, room.size)
    queue = queue.reshape(-1)
    kept = keep_first(queue, jax.random.bits(key, queue.shape), room) & (queue < room.size)
    return kept.reshape(experts.shape), surplus_weights(queue, room).reshape(experts.shape)
