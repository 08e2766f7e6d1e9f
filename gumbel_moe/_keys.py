"""Random keys of every kind that JAX has."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def check_key(key: Any, *, hint: str = "") -> Array:
    """`key` if it is a single JAX key: typed, of any generator, or the bare words of one of the default generator."""
    if isinstance(key, Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.shape == ():
                return jnp.asarray(key)
            raise TypeError(f"key must be a single JAX key, got {key.shape} of them; use jax.vmap for many")
        words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
        if key.dtype == jnp.uint32 and key.shape == words:
            return jnp.asarray(key)
        if key.dtype == jnp.uint32 and key.shape in ((2,), (4,)):
            raise TypeError(
                f"key must be of the default generator, whose keys have shape {words}, where it is an array of words, "
                f"got shape {key.shape}; jax.random.key or jax.random.wrap_key_data say which generator they are for"
            )
    got = f"{key.dtype} of shape {key.shape}" if isinstance(key, Array | np.ndarray) else repr(key)
    raise TypeError(f"key must be a JAX key such as jax.random.key(0), got {got}{hint}")
