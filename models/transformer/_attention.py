"""Causal self-attention with rotary positions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models.transformer._sizes import Sizes


class Attention(eqx.Module):
    """Of `heads` heads that share the width evenly; all leaves are arrays."""

    queries: eqx.nn.Linear
    keys: eqx.nn.Linear
    values: eqx.nn.Linear
    out: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, sizes: Sizes) -> None:
        self.queries, self.keys, self.values, self.out = (
            eqx.nn.Linear(sizes.width, sizes.width, use_bias=False, key=each) for each in jax.random.split(key, 4)
        )
        self.heads = sizes.heads

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Each sequence by itself, each token on itself and what came before."""
        rotary = eqx.nn.RotaryPositionalEmbedding(x.shape[-1] // self.heads, dtype=jnp.float32)

        def of_heads(linear: eqx.nn.Linear) -> Array:
            return jax.vmap(jax.vmap(linear))(x).reshape(*x.shape[:2], self.heads, -1)

        def turned(heads: Array) -> Array:
            return jax.vmap(jax.vmap(rotary, 1, 1))(heads).astype(x.dtype)

        queries, keys, values = turned(of_heads(self.queries)), turned(of_heads(self.keys)), of_heads(self.values)
        mixed = jax.nn.dot_product_attention(queries, keys, values, is_causal=True)
        return jax.vmap(jax.vmap(self.out))(mixed.reshape(x.shape))
