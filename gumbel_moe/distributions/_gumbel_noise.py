"""Standard Gumbel noise at half the price: it is a large part of all the work of a draw of Gumbel-Matching."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.random import threefry_2x32
from jax.typing import DTypeLike

_BELOW_ONE = 1 - 2.0**-24


def gumbel_noise(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Standard Gumbel draws of `shape`, which has an axis at least.

    Threefry hashes a counter into two words of 32 bits. `jax.random.gumbel` makes one float32 of both, so that how
    numbers are counted does not depend on how many there are; here each word becomes a number of its own. So they are
    not the numbers of `jax.random.gumbel`. Other types, and keys of other generators, are left to that.
    """
    if dtype != jnp.float32 or jax.random.key_impl(key) != "threefry2x32":
        return jax.random.gumbel(key, shape, dtype)
    *outer, width = shape
    rows = math.prod(outer)
    half = (rows + 1) // 2
    words = threefry_2x32(jax.random.key_data(key), jax.lax.iota(jnp.uint32, 2 * half * width))
    # All first words, then all second ones, joined as rows: XLA reads flat halves one number at a time.
    first, second = words[: half * width], words[half * width :]
    noise = jnp.concatenate([_gumbel(first.reshape(half, width)), _gumbel(second.reshape(half, width))])
    return noise[:rows].reshape(shape)


def _gumbel(words: Array) -> Array:
    """23 of the bits become the midpoint of one of 2**23 equal parts of (0, 1): no logarithm meets a 0."""
    one_to_two = jax.lax.bitcast_convert_type((words >> 9) | jnp.uint32(0x3F800000), jnp.float32)
    return -jnp.log(-jnp.log(one_to_two - jnp.float32(_BELOW_ONE)))
