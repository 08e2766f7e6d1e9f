"""The map from a standard normal variable to one that is cut off from below."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr

from gumbel_moe._varying import vary_like

UNCUT = -30.0  # a lower bound that cuts nothing off
HALF_LOG_TWO_PI = 0.9189385332046727


def log_normal(x: Array) -> Array:
    """Log of the standard normal density."""
    return -0.5 * x**2 - HALF_LOG_TWO_PI


def log_tail(x: Array) -> Array:
    """Log of the normal probability above `x`."""
    return log_ndtr(-x)


def cut_normal(log_tail_x: Array, x: Array, bound: Array, log_tail_bound: Array) -> tuple[Array, Array]:
    """`w > bound` with `Q(w) = Q(x) Q(bound)`, `Q` the upper tail, and `log Q(w)`: a normal `x` is cut off at `bound`.

    The slope of `w` is the hazard (density over tail) at `x` over that at `w`.
    """
    target = log_tail_x + log_tail_bound

    def newton(_: int, w: Array) -> Array:
        tail = log_tail(w)
        return w + (tail - target) * jnp.exp(tail - log_normal(w))

    # log Q is concave: from the left the first step overshoots, all later ones come back without passing the root.
    return jax.lax.fori_loop(0, 8, newton, vary_like(target, jnp.maximum(x, bound))), target
