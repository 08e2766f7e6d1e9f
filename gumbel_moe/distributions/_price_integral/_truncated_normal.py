"""The map from a standard normal variable to one that is cut off from below."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like

UNCUT = -30.0  # a lower bound that cuts nothing off
HALF_LOG_TWO_PI = 0.9189385332046727
_STEPS = 8  # of Newton's method


def log_normal(x: Array) -> Array:
    """Log of the standard normal density."""
    return -0.5 * x**2 - HALF_LOG_TWO_PI


def log_tail(x: Array) -> Array:
    """Log of the normal probability above `x`.

    `jax.scipy.special.log_ndtr`, of which this has the precision, is a program three times as long.
    """
    distance = jnp.abs(x)
    far = 10.0 if jnp.finfo(x.dtype).bits < 64 else 20.0
    beyond = distance > far  # before the tail underflows, its asymptotic series is exact
    tail = 0.5 * jax.lax.erfc(distance * 0.5**0.5)
    inverse = 1 / jnp.maximum(distance, far)
    square = inverse**2
    series = 1 - square * (1 - square * (3 - square * (15 - square * 105)))
    upper = jnp.log(jnp.where(beyond, inverse * series, tail)) + jnp.where(beyond, log_normal(x), 0)
    return jnp.where(x < 0, jnp.log1p(-tail), upper)


def cut_normal(x: Array, bound: Array, log_tail_bound: Array) -> Array:
    """`w > bound` with `Q(w) = Q(x) Q(bound)`, `Q` the upper tail.

    The slope of `w` is the hazard (density over tail) at `x` over that at `w`: `exp((w^2 - x^2) / 2) Q(bound)`.
    """

    def newton(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        step, w, target = carry
        tail = log_tail(w)
        # The first step, at `x`, is there for the target alone: one copy of `log_tail` in the program.
        first = step == 0
        target = jnp.where(first, tail + log_tail_bound, target)
        moved = w + (tail - target) * jnp.exp(tail - log_normal(w))
        return step + 1, jnp.where(first, jnp.maximum(x, bound), moved), target

    # log Q is concave: from the left the first step overshoots, all later ones come back without passing the root.
    # Where nothing is cut off, `w` is `x`, and no step is made.
    steps = jnp.where(jnp.any(bound > UNCUT), _STEPS + 1, 0)
    start = vary_like((x, bound, log_tail_bound), (jnp.zeros((), jnp.int32), x, jnp.zeros_like(x)))
    return jax.lax.while_loop(lambda carry: carry[0] < steps, newton, start)[1]
