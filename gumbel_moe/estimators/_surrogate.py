"""What surrogate losses are made of."""

import jax
import jax.numpy as jnp
from jax import Array


def gradient_only(x: Array) -> Array:
    """Zero, with the gradient of `x`; also where `x` is `-inf`."""
    return jnp.where(jnp.isneginf(x), 0, x - jax.lax.stop_gradient(x))
