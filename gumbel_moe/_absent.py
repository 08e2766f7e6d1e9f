"""Datapoints that take no part in a matching: they go to one more expert, which has room for all and takes no other.

Where every datapoint has several experts, there are as many more of them.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced


@partial(jax.jit, static_argnames="number")
def with_absent(scores: Array, present: Array, number: int = 1) -> Array:
    """`scores` `(..., n, k + number)`, in which those not `present` `(..., n)` have the last ones, and nobody else."""
    outside = jnp.broadcast_to(jnp.where(present, -jnp.inf, 0)[..., None], (*scores.shape[:-1], number))
    inside = jnp.where(present[..., None], scores, -jnp.inf)
    return jnp.concatenate([inside, outside.astype(scores.dtype)], axis=-1)


def capacity_with_absent(capacity: Array | np.ndarray, num_datapoints: int, number: int = 1) -> Array | np.ndarray:
    """The capacities `(..., k + number)` that go with it, in NumPy unless they are traced."""
    stack = jnp if is_traced(capacity) else np
    room = stack.full((*capacity.shape[:-1], number), num_datapoints, np.int32)
    return stack.concatenate([capacity, room], axis=-1)
