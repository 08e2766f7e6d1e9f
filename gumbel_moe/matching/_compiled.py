"""Small problems on a CPU: a custom call into the compiled solver, `native/successive_paths.h`.

XLA runs the search for prices as some hundred kernels, each of which costs a fraction of a microsecond whatever it
does, and more where it is handed to another thread. For problems that fit the cache this is most of the time.
"""

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec

import jax
import jax.numpy as jnp
from jax import Array

_MOST_SCORES = 2**17  # larger problems are for the search, which works on all cores and has milder worst cases
_MOST_PER_EXPERT = 1024  # a datapoint that leaves an expert costs a pass over those that stay
_TARGET = "gumbel_moe_successive_paths_f{bits}"


def _register() -> bool:
    """Whether the custom calls can be used: not without a compiler at installation, nor with an older JAX than then."""
    spec = find_spec("gumbel_moe.matching._native")
    if spec is None or spec.origin is None:
        return False
    try:
        library = ctypes.cdll.LoadLibrary(spec.origin)
        for bits in (32, 64):
            name = _TARGET.format(bits=bits)
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError, RuntimeError):
        return False
    return True


AVAILABLE = _register()


def suits(n: int, k: int) -> bool:
    """Whether a problem of `n` datapoints and `k` experts goes to the compiled solver where it runs on a CPU."""
    return AVAILABLE and n > 0 and max(n, k) * k <= _MOST_SCORES and n <= _MOST_PER_EXPERT * k


def successive_paths(scores: Array, capacity: Array, prices: Array | None) -> Sequence[Array]:
    """`assignment`, `prices`, `value`, `gap` and `steps` (paths) of a `Matching`, for any values of the arguments."""
    n, k = scores.shape
    if prices is None:
        prices = jnp.full(k, jnp.nan, scores.dtype)  # not used, as none that are not finite
    one = jax.ShapeDtypeStruct((), scores.dtype)
    out = (
        jax.ShapeDtypeStruct((n,), jnp.int32),
        jax.ShapeDtypeStruct((k,), scores.dtype),
        one,
        one,
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    call = jax.ffi.ffi_call(_TARGET.format(bits=jnp.finfo(scores.dtype).bits), out)
    return call(scores, capacity.astype(jnp.int32), prices)
