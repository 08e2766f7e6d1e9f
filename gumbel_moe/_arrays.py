"""Values as JAX arrays, without what JAX narrows in silence: 64 bits become 32 where `jax_enable_x64` is off."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

_HINT = {4: " while jax_enable_x64 is off", 8: ""}


def is_traced(*values: Any) -> bool:
    """Whether a value is abstract here, so that it cannot be looked at."""
    return any(isinstance(value, Tracer) for value in values)


def as_array(name: str, value: Any) -> Array:
    """`value` as an array that can be looked at, unless it is traced: a constant inside `jit` stays one.

    Raises where a number does not survive the width in use. Rounding is no such loss, nor is what was infinite before.
    """
    if isinstance(value, Array) or is_traced(*jax.tree.leaves(value)):
        return jnp.asarray(value)
    host = _on_host(name, value)
    wide = np.float64 if host.dtype == np.longdouble else host.dtype
    narrow = np.dtype(jnp.result_type(int) if host.dtype.kind == "O" else jax.dtypes.canonicalize_dtype(wide))
    if narrow != host.dtype:
        _check_range(name, host, narrow)
    with jax.ensure_compile_time_eval():
        # A Python number stays weakly typed.
        return jnp.asarray(value if np.isscalar(value) and not isinstance(value, np.generic) else host.astype(narrow))


def as_floats(name: str, value: Any) -> Array:
    """`as_array`, with integers of any size as floats of the default width; those it cannot hold are rounded."""
    if not isinstance(value, Array) and not is_traced(*jax.tree.leaves(value)):
        host = _on_host(name, value)
        if host.dtype.kind in "iuO":
            value = host.astype(np.float64)
    array = as_array(name, value)
    return array.astype(jnp.result_type(float)) if jnp.issubdtype(array.dtype, jnp.integer) else array


def _on_host(name: str, value: Any) -> np.ndarray:
    """`value` in NumPy, where integers that need more than 64 bits stay objects."""
    host = np.asarray(value)
    numbers = host.dtype.kind in "biufcV"  # V: the narrow floats of ml_dtypes
    if numbers or (host.dtype.kind == "O" and host.size and all(isinstance(x, int) for x in host.flat)):
        return host
    raise TypeError(f"{name} must be numbers, got dtype {host.dtype} ({value!r:.60})")


def _check_range(name: str, host: np.ndarray, narrow: np.dtype) -> None:
    """Raise for the first number that `narrow` cannot hold."""
    if narrow.kind in "iu":
        limits = np.iinfo(narrow)
        outside = np.asarray((host < limits.min) | (host > limits.max), bool)
    elif narrow.kind == "f":
        outside = np.isfinite(host) & (np.abs(host) > np.finfo(narrow).max)
    else:
        return
    if outside.any():
        raise ValueError(
            f"{name} must fit in {narrow}, the width in use{_HINT[narrow.itemsize]}, got {host[outside].flat[0]!s}"
        )
