"""The logarithm of a mean weight with its standard error, and which of two such estimates to trust."""

import jax
import jax.numpy as jnp
from jax import Array

_BY_CHANCE = (0.1, 2.0)  # nats: by less, or by more, another estimate is never, or always, too much larger for chance


def better(estimates: Array, errors: Array) -> Array:
    """The more precise of two proposals, unless the other one has found mass that it misses."""
    failed = jnp.isnan(estimates) | jnp.isnan(errors)
    estimates, errors = jnp.where(failed, -jnp.inf, estimates), jnp.where(failed, jnp.inf, errors)
    precise = jnp.argmin(errors)
    # However large its error, an estimate is too high by `d` nats with a probability of at most exp(-d) (Markov).
    by_chance = jnp.clip(5 * jnp.sqrt(jnp.sum(errors**2)), *_BY_CHANCE)
    missed = jnp.max(estimates) - estimates[precise] > by_chance
    return jnp.where(missed, jnp.argmax(estimates), precise)


def log_mean_and_error(pairs: Array, count: Array | None = None) -> tuple[Array, Array]:
    """Logarithm of the mean weight over the first `count` pairs (all), and its standard error.

    The sample's own error is too small where it has missed the rarest weights. So twice what the farthest one that it
    has seen contributes is added, at least what one more pair of weight 0 would change; and where one weight makes up
    almost all, the error grows without bound.
    """
    total = jnp.asarray(pairs.size if count is None else count, pairs.dtype)
    log_mean = jax.nn.logsumexp(pairs) - jnp.log(total)
    off = jnp.exp(jax.lax.stop_gradient(pairs - log_mean)) / total - 1 / total
    off = jnp.where(jnp.arange(pairs.size) < total, off, 0)
    farthest = jnp.maximum(jnp.max(jnp.abs(off)), 0.5 / total)
    return log_mean, jnp.sqrt(jnp.sum(off**2) + 4 * farthest**2) / jnp.maximum(1 - farthest, 1 / total)
