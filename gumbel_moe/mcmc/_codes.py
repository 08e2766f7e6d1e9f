"""Values of an assignment site as codes, the columns of a table: `j` for kept by expert `j`, `k + j` for skipped."""

import jax.numpy as jnp
from jax import Array


def encode(value: Array, num_experts: int) -> Array:
    """Codes of values in which `~j` stands for skipped by expert `j`."""
    return jnp.where(value < 0, num_experts - 1 - value, value)


def decode(code: Array, num_experts: int) -> Array:
    """The inverse of `encode`."""
    return jnp.where(code < num_experts, code, num_experts - 1 - code)
