"""The library of custom calls for a CPU, `native/custom_calls.cc`, made known to JAX."""

import ctypes
import os
from importlib.util import find_spec
from pathlib import Path

import jax

SUCCESSIVE_PATHS = "gumbel_moe_successive_paths_f{bits}"
SUCCESSIVE_PATHS_SEVERAL = "gumbel_moe_successive_paths_several_f{bits}"
LOG_PROB = "gumbel_moe_log_prob_f{bits}"
LOG_PROB_AND_SCORE = "gumbel_moe_log_prob_and_score_f{bits}"
_SWITCH = "GUMBEL_MOE_COMPILED"  # 0: all is computed in JAX


def _register() -> bool:
    """Whether the custom calls can be used: not without a compiler at installation, nor with another JAX than then.

    Nor with a library of an earlier version, as an editable installation keeps it, that lacks one of them.
    """
    spec = find_spec("gumbel_moe._native")
    if os.environ.get(_SWITCH) == "0" or spec is None or spec.origin is None:
        return False
    try:
        library = ctypes.cdll.LoadLibrary(spec.origin)
        built_for = tuple((ctypes.c_int * 2).in_dll(library, "gumbel_moe_xla_ffi_version"))
        targets = SUCCESSIVE_PATHS, SUCCESSIVE_PATHS_SEVERAL, LOG_PROB, LOG_PROB_AND_SCORE
        names = [target.format(bits=bits) for target in targets for bits in (32, 64)]
        handlers = [getattr(library, name) for name in names]
    except (OSError, ValueError, AttributeError):
        return False
    # JAX takes note of what is registered, and finds out that it does not fit when it is too late.
    if built_for != _xla_ffi_version():
        return False
    for name, handler in zip(names, handlers, strict=True):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
    return True


def _xla_ffi_version() -> tuple[int, ...]:
    """Version of the interface of the JAX that is installed, from the headers that come with it."""
    header = Path(jax.ffi.include_dir(), "xla/ffi/api/c_api.h")
    lines = header.read_text().splitlines() if header.is_file() else []
    prefixes = ("#define XLA_FFI_API_MAJOR ", "#define XLA_FFI_API_MINOR ")
    return tuple(int(line.split()[2]) for prefix in prefixes for line in lines if line.startswith(prefix))


AVAILABLE = _register()
