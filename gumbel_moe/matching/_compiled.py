"""The matching on a CPU: a custom call into the compiled solver, `native/successive_paths.h`.

A path costs it a few microseconds, where the search in JAX needs a pass over the scores; and it is one kernel, where
XLA runs the search as some hundred, which is most of the time for small problems.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._custom_calls import AVAILABLE, SUCCESSIVE_PATHS, SUCCESSIVE_PATHS_SEVERAL
from gumbel_moe._varying import vary_like

# Other problems are for the search, which works on all cores and has milder worst cases.
_MOST_SCORES = 2**22
_MOST_PER_EXPERT = 1024  # a datapoint that leaves an expert costs a pass over those that stay


def compiled_solver_available() -> bool:
    """Whether matchings and their probabilities on a CPU are computed by the compiled solver.

    It is built when the package is installed where a C++ compiler is, for the JAX that is installed then. Without it,
    or with `GUMBEL_MOE_COMPILED=0` in the environment, the same is computed in JAX, and takes longer, above all to
    compile.

    **Returns:** whether this process can use it.

    ```python
    >>> from gumbel_moe.matching import compiled_solver_available
    >>> compiled_solver_available() in (True, False)
    True

    ```
    """
    return AVAILABLE


def suits(n: int, k: int, each: int | None = None) -> bool:
    """Whether a problem of `n` datapoints and `k` experts goes to the compiled solver where it runs on a CPU.

    With several experts for `each` datapoint it keeps those of an expert in order, and looks at few of them.
    """
    fits = AVAILABLE and n > 0 and max(n, k) * k <= _MOST_SCORES
    return fits and (n <= _MOST_PER_EXPERT * k or (each or 1) > 1)


def successive_paths(
    scores: Array, capacity: Array, prices: Array | None = None, *, each: int | None = None
) -> tuple[Sequence[Array], Array]:
    """The fields of a `Matching`, with paths as `steps`, and the residual costs `(k, k)` of its assignment.

    For any values of the arguments; where there is no matching, the costs are NaN.
    """
    n, k = scores.shape
    target, assignment = (SUCCESSIVE_PATHS, (n,)) if each is None else (SUCCESSIVE_PATHS_SEVERAL, (n, each))
    if prices is None:
        prices = jnp.full(k, jnp.nan, scores.dtype)  # not used, as none that are not finite
    fields = [(assignment, jnp.int32), ((k,), scores.dtype), ((), scores.dtype), ((), scores.dtype), ((), jnp.int32)]
    out = [jax.ShapeDtypeStruct(*field) for field in (*fields, ((k, k), scores.dtype))]
    call = jax.ffi.ffi_call(target.format(bits=jnp.finfo(scores.dtype).bits), out)
    given = scores, capacity, prices
    *match, costs = vary_like(given, call(*vary_like(given, given)))
    return match, costs
