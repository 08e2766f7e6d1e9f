"""The matching on a CPU: a custom call into the compiled solver, `native/successive_paths.h`.

A path costs it a few microseconds, where the search in JAX needs a pass over the scores; and it is one kernel, where
XLA runs the search as some hundred, which is most of the time for small problems.
"""

import ctypes
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like

# Other problems are for the search, which works on all cores and has milder worst cases.
_MOST_SCORES = 2**22
_MOST_PER_EXPERT = 1024  # a datapoint that leaves an expert costs a pass over those that stay
_TARGET = "gumbel_moe_successive_paths_f{bits}"
_SWITCH = "GUMBEL_MOE_COMPILED"  # 0: the search solves everything


def _register() -> bool:
    """Whether the custom calls can be used: not without a compiler at installation, nor with another JAX than then."""
    spec = find_spec("gumbel_moe.matching._native")
    if os.environ.get(_SWITCH) == "0" or spec is None or spec.origin is None:
        return False
    try:
        library = ctypes.cdll.LoadLibrary(spec.origin)
        built_for = tuple((ctypes.c_int * 2).in_dll(library, "gumbel_moe_xla_ffi_version"))
    except (OSError, ValueError):
        return False
    # JAX takes note of what is registered, and finds out that it does not fit when it is too late.
    if built_for != _xla_ffi_version():
        return False
    for bits in (32, 64):
        name = _TARGET.format(bits=bits)
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return True


def _xla_ffi_version() -> tuple[int, ...]:
    """Version of the interface of the JAX that is installed, from the headers that come with it."""
    header = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h")
    lines = header.read_text().splitlines() if header.is_file() else []
    prefixes = ("#define XLA_FFI_API_MAJOR ", "#define XLA_FFI_API_MINOR ")
    return tuple(int(line.split()[2]) for prefix in prefixes for line in lines if line.startswith(prefix))


AVAILABLE = _register()


def suits(n: int, k: int) -> bool:
    """Whether a problem of `n` datapoints and `k` experts goes to the compiled solver where it runs on a CPU."""
    return AVAILABLE and n > 0 and max(n, k) * k <= _MOST_SCORES and n <= _MOST_PER_EXPERT * k


def successive_paths(scores: Array, capacity: Array, prices: Array | None = None) -> tuple[Sequence[Array], Array]:
    """The fields of a `Matching`, with paths as `steps`, and the residual costs `(k, k)` of its assignment.

    For any values of the arguments; where there is no matching, the costs are NaN.
    """
    n, k = scores.shape
    if prices is None:
        prices = jnp.full(k, jnp.nan, scores.dtype)  # not used, as none that are not finite
    fields = [((n,), jnp.int32), ((k,), scores.dtype), ((), scores.dtype), ((), scores.dtype), ((), jnp.int32)]
    out = [jax.ShapeDtypeStruct(*field) for field in (*fields, ((k, k), scores.dtype))]
    call = jax.ffi.ffi_call(_TARGET.format(bits=jnp.finfo(scores.dtype).bits), out)
    given = scores, capacity, prices
    *match, costs = vary_like(given, call(*vary_like(given, given)))
    return match, costs
