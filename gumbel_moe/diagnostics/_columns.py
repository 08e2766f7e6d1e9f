"""Sums over the draws of a batch, coordinate by coordinate.

Row by row: a reduction along the first axis of few, very long rows takes XLA ten times as long on a CPU.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class FirstLook(NamedTuple):
    """`(size,)` arrays."""

    largest: Array
    """Largest absolute deviation."""
    magnitude: Array
    """Sum of the sizes."""
    peak: Array
    """Largest size."""
    nonzero: Array
    """How many values are not 0."""
    broken: Array
    """How many are NaN or infinite, the value or its size."""


def first_look(values: Array, sizes: Array, deviation: Array, valid: Array) -> FirstLook:
    """Over the valid rows of `(rows, size)` arrays."""
    zeros, none = jnp.zeros_like(values[0]), jnp.zeros(values.shape[1], jnp.int32)

    def add(seen: FirstLook, row: tuple[Array, Array, Array, Array]) -> tuple[FirstLook, None]:
        value, size, off, real = row
        size = jnp.where(real, size, 0)
        return FirstLook(
            largest=jnp.maximum(seen.largest, jnp.abs(off)),
            magnitude=seen.magnitude + size,
            peak=jnp.maximum(seen.peak, size),
            nonzero=seen.nonzero + (real & (value != 0)).astype(jnp.int32),
            broken=seen.broken + (real & ~(jnp.isfinite(value) & jnp.isfinite(size))).astype(jnp.int32),
        ), None

    start = FirstLook(zeros, zeros, zeros, none, none)
    return jax.lax.scan(add, start, (values, sizes, deviation, valid))[0]


def mean_and_squares(deviation: Array, scale: Array, valid: Array) -> tuple[Array, Array]:
    """Mean, and sum of squared differences from it, of `deviation / scale` over the valid rows (B. Welford, 1962)."""
    zeros = jnp.zeros_like(scale)

    def add(state: tuple[Array, Array, Array], row: tuple[Array, Array]) -> tuple[tuple[Array, Array, Array], None]:
        (mean, squares, count), (off, real) = state, row
        count = count + real.astype(count.dtype)
        gap = jnp.where(real, off / scale - mean, 0)
        moved = mean + gap / jnp.maximum(count, 1)
        return (moved, squares + gap * jnp.where(real, off / scale - moved, 0), count), None

    mean, squares, _ = jax.lax.scan(add, (zeros, zeros, jnp.zeros((), scale.dtype)), (deviation, valid))[0]
    return mean, squares
