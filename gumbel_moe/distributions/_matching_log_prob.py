"""The probability of an assignment under Gumbel-Matching, as a function."""

import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._checks import check_capacity, check_logits, check_positive, check_positive_int, check_room
from gumbel_moe._keys import check_key
from gumbel_moe.distributions._compiled_log_prob import compiled_estimates, suits
from gumbel_moe.distributions._log_prob_in_jax import BY_QUADRATURE, Precision, estimate_many

DEFAULT_DRAWS = 512
Method = Literal["quadrature", "sampling"]


class Estimate(NamedTuple):
    """A number and how far off it may be."""

    value: Array
    """The estimate."""
    error: Array
    """Its standard error, of the same shape and in the same unit."""


def matching_log_prob(
    logits: ArrayLike,
    assignment: ArrayLike,
    capacity: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    num_draws: int = DEFAULT_DRAWS,
    target_error: float | None = None,
    key: Array | None = None,
    method: Method | None = None,
) -> Estimate:
    r"""Log-probability, in nats, that Gumbel-Matching gives exactly this assignment; and its standard error.

    With $p_{ij}(u) = \mathrm{softmax}_j(a_{ij} - u_j)$ at prices $u$ of the experts, $R_{pj}(u)$ the sum of
    $p_{ij}(u)$ over the datapoints of expert $p$, and $L = \mathrm{diag}(c) - R$,

    $$P(z) = \int \det L_F(u) \, \prod_i p_{i z_i}(u) \; du_F .$$

    If every place is taken, $F$ are all experts but one, whose price is 0, and the others range over the line. If
    places are free, $F$ are the full experts, their prices are at least 0, and those of the others are 0. The integral
    has fewer than `k` dimensions, whatever `n` is.

    - `k = 1` is trivial, and `k = 2, 3` are integrated by the trapezoidal rule on a box fitted to the integrand: exact
      to rounding, or nearly so, unless a `target_error` lets fewer nodes do. The error is the difference from a coarser
      rule, and an allowance for rounding.
    - For more experts: Newton's method finds the mode, in coordinates that make the integrand almost normal, and
      importance sampling around it gives the integral and its standard error. With nearly as many experts as
      datapoints, many of both, and sharp logits, that error is large, and can still be too small.

    The same arguments give the same result. The gradient in the logits is that of the estimate at fixed price vectors:
    the score averaged with self-normalised weights. For more than three experts the value is continuous only in pieces:
    it jumps, by about its standard error and for permutations by several, where another way to draw the price vectors
    becomes the better one. So finite differences across such a place say nothing of the gradient, and a line search
    should not ask for more precision than that; more `num_draws` make the jumps smaller. Works under `jit`, `vmap` and
    `grad`; memory is `O(num_draws + n k + k^3)` for each assignment. On a CPU it is one compiled call, and compiles at
    once; elsewhere, or where that could not be built, a program takes ten seconds and more to compile for every shape,
    and so do second derivatives.

    **Arguments:**

    - `logits`: `(..., n, k)`; `-inf` forbids an expert for a datapoint.
    - `assignment`: `(..., n)` integers. Leading axes broadcast against those of `logits`.
    - `capacity`: an int, or `(k,)` ints, at least 1; `sum(capacity) >= n`, or what the mask leaves of `n`.
    - `mask`: `(..., n)` bool, false for datapoints that take no part: their assignment is `k`, their logits may hold
      anything. By default all take part.
    - `num_draws`: price vectors to draw, rounded up to a multiple of 32. It has no effect on quadrature.
    - `target_error`: stop drawing as soon as the standard error, in nats, is at most this; `num_draws` is the limit.
      Every assignment then draws at least 32. Under `vmap`, elsewhere than on a CPU, all draws are made, and those
      beyond the target are dropped. On a CPU, quadrature takes as few nodes as it needs for it.
    - `key`: JAX key of the price vectors; by default a fixed one, so that differences between two assignments, or two
      nearby logits, have common random numbers.
    - `method`: `"quadrature"`, for at most three experts, or `"sampling"`. By default quadrature where it is possible;
      for three experts sampling can be faster.

    **Returns:** an [`Estimate`][gumbel_moe.distributions.Estimate] `(value, error)`, both `(...)`. Outside the support
    the value is `-inf` and the error 0. NaN or `+inf` logits under `jit` give NaN.

    **Raises:** `ValueError` or `TypeError` as [`GumbelMatching`][gumbel_moe.distributions.GumbelMatching] does,
    `ValueError` when `assignment` does not end in `n` integers, `mask` has another shape or type, `num_draws` or
    `target_error` is not positive, or there is no such `method`, or not for so many experts.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.distributions import matching_log_prob
    >>> log_prob, error = matching_log_prob(jnp.zeros((4, 2)), jnp.array([0, 1, 1, 0]), capacity=2)
    >>> print(f"{jnp.exp(log_prob):.4f}")  # one of six equally likely
    0.1667

    ```

    Reference: derived on the documentation's page *The probability of a matching*.
    """
    logits, present = check_logits(logits, mask)
    capacity = check_capacity(capacity, logits.shape[-1])
    check_room(capacity, logits.shape[-2], present)
    assignment = as_array("assignment", assignment)
    if assignment.shape[-1:] != logits.shape[-2:-1] or not jnp.issubdtype(assignment.dtype, jnp.integer):
        expected = f"(..., {logits.shape[-2]})"
        raise ValueError(
            f"assignment must be integers of shape {expected}, got {assignment.dtype} of shape {assignment.shape}"
        )
    num_draws = check_positive_int("num_draws", num_draws)
    if target_error is not None:
        target_error = check_positive("target_error", target_error)
    key = None if key is None else check_key(key)
    n, k = logits.shape[-2:]
    precision = Precision(num_draws, target_error, check_method(method, k) == "sampling")
    compiled = suits(n, k, key)
    drawn_by = jax.random.key(0) if key is None else key
    if compiled:  # the words of a key, which are not computed where there is none
        drawn_by = jnp.asarray(np.zeros(2, np.uint32)) if key is None else jax.random.key_data(key)
    return _estimate(logits, assignment, jnp.asarray(capacity), present, drawn_by, precision, compiled)


def check_method(method: Method | None, num_experts: int | None = None) -> Method | None:
    """`method`, if there is one of this name, and for so many experts."""
    if method not in (None, "quadrature", "sampling"):
        raise ValueError(f"method must be 'quadrature', 'sampling' or None, got {method!r}")
    if method == "quadrature" and num_experts is not None and num_experts > BY_QUADRATURE:
        raise ValueError(f"method 'quadrature' is for at most {BY_QUADRATURE} experts, got {num_experts}")
    return method


@partial(jax.jit, static_argnames=("precision", "compiled"))
def _estimate(
    logits: Array,
    assignment: Array,
    capacity: Array,
    present: Array | None,
    key: Array,
    precision: Precision,
    compiled: bool,
) -> Estimate:
    shape = jnp.broadcast_shapes(logits.shape[:-2], assignment.shape[:-1])
    n = logits.shape[-2]
    present = jnp.ones((1, n), bool) if present is None else present
    narrow = assignment.astype(jnp.int32)
    if assignment.dtype.itemsize > narrow.dtype.itemsize:  # what is cut off must not make an expert of no expert
        narrow = jnp.where(narrow == assignment, narrow, -1)
    problems = (
        _flat(logits, shape, 2),
        jnp.broadcast_to(narrow, (*shape, n)).reshape(math.prod(shape), n),
        _flat(present, shape, 1),
        capacity[None],
        key[None],
    )
    estimates = compiled_estimates if compiled else estimate_many
    value, error = estimates(*problems, precision)
    return Estimate(value.reshape(shape), error.reshape(shape))


def _flat(x: Array, shape: tuple[int, ...], rank: int) -> Array:
    """The last `rank` axes alone, if there is one for all problems of the batch; otherwise as many as problems."""
    core = x.shape[x.ndim - rank :]
    if math.prod(x.shape[: x.ndim - rank]) == 1:
        return x.reshape(1, *core)
    return jnp.broadcast_to(x, (*shape, *core)).reshape(math.prod(shape), *core)
