"""Draws of several experts for every datapoint: the largest of its perturbed logits, and their weights."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_experts, best_experts, keep_first, surplus_weights
from gumbel_moe._floor import floored
from gumbel_moe._logits import centred
from gumbel_moe.routing._unordered_set import MOST_IN_A_SET, of_two, set_weights

_TINY = -20.0  # of log-rates: 1 - exp(-x) is x to rounding where x is below exp(-20), in both float widths


def without_replacement(key: Array, logits: Array, floor: float, number: int) -> tuple[Array, Array, Array]:
    """Experts `(n, m)` drawn without replacement, and the weights `(n, m)` of each and `(n, m, m)` of pairs of them."""
    drawn_from = centred(floored(logits, floor))
    perturbed = drawn_from + jax.random.gumbel(key, logits.shape, logits.dtype)
    experts = best_experts(perturbed, number)
    if number <= MOST_IN_A_SET:
        log_probs, log_drawn = (
            jax.nn.log_softmax(a, axis=1) for a in (centred(jax.lax.stop_gradient(logits)), drawn_from)
        )
        return experts, *set_weights(log_probs, log_drawn, experts)
    k = logits.shape[1]
    # The largest that was not drawn is what the others had to exceed.
    next_best = (
        jax.lax.top_k(perturbed, number + 1)[0][:, -1:] if number < k else jnp.full_like(perturbed, -jnp.inf)[:, :1]
    )
    log_q = log_inclusion(at_experts(drawn_from, experts) - next_best)
    return experts, *inclusion_weights(logits, log_q, experts)


def log_inclusion(margin: Array) -> Array:
    r"""$\log P(a + G > \tau) = \log (1 - \exp(-e^{a - \tau}))$, with $G$ standard Gumbel, for margins $a - \tau$."""
    few = jnp.minimum(margin, _TINY)
    rate = jnp.exp(jnp.maximum(margin, _TINY))
    some = jnp.log(-jnp.expm1(-jnp.minimum(rate, 1)))
    many = jnp.log1p(-jnp.exp(-jnp.maximum(rate, 1)))
    return jnp.where(margin < _TINY, few - jnp.exp(few) / 2, jnp.where(rate < 1, some, many))


def inclusion_weights(logits: Array, log_q: Array, experts: Array) -> tuple[Array, Array]:
    """`p / q` at the experts `(n, m)`, with `p` the softmax of `logits`, a constant; and of pairs their products."""
    log_p = at_experts(jax.nn.log_softmax(jax.lax.stop_gradient(logits), axis=1), experts)
    weight = jnp.where(experts < logits.shape[1], jnp.exp(log_p - log_q), 0)
    return weight, of_two(weight)


def keep_random(key: Array, experts: Array, present: Array | None, places: tuple[int, ...]) -> tuple[Array, Array]:
    """Who stays, `(n, m)`, where every expert keeps a random subset, and how many each of those stands for."""
    room = jnp.asarray(places, jnp.int32)
    queue = experts if present is None else jnp.where(present[:, None], experts, room.size)
    queue = queue.reshape(-1)
    kept = keep_first(queue, jax.random.bits(key, queue.shape), room) & (queue < room.size)
    return kept.reshape(experts.shape), surplus_weights(queue, room).reshape(experts.shape)
