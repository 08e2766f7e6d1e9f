"""The log-probability of assignments in JAX, for every device; the compiled one of a CPU takes the same steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._batch import over_leading_axes
from gumbel_moe.distributions._price_integral import by_quadrature, by_sampling, keys_for, price_problem

BY_QUADRATURE = 3  # experts, at most
_LANES = 64  # assignments of a batch at a time


class Precision(NamedTuple):
    """What an estimate may cost."""

    num_draws: int
    target_error: float | None = None
    by_sampling: bool = False
    """Also for two and three experts."""


def estimate_many(
    logits: Array,
    assignment: Array,
    present: Array,
    capacity: Array,
    key: Array,
    precision: Precision,
) -> tuple[Array, Array]:
    """Values and standard errors `(batch,)` of assignments `(batch, n)`; all other arrays have one, or `batch`."""
    batch = assignment.shape[0]
    problems = [jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (logits, assignment, present)]
    rest = (capacity, key)
    shared = [x[0] if x.shape[0] != batch or batch == 1 else None for x in rest]
    own = [x for x, one_for_all in zip(rest, shared, strict=True) if one_for_all is None]

    def one(logits: Array, assignment: Array, present: Array, *own: Array) -> tuple[Array, Array]:
        each = iter(own)
        capacity, key = (next(each) if x is None else x for x in shared)
        # By default accelerators keep 10 or 7 bits of a float32 factor, which costs thousandths of a nat.
        with jax.default_matmul_precision("highest"):
            return estimate_one(logits, assignment, present, capacity, key, precision)

    if batch == 1:
        value, error = one(*(x[0] for x in problems))
        return value[None], error[None]
    if batch <= _LANES:
        return over_leading_axes(one, (2, *(x.ndim - 1 for x in (*problems[1:], *own))), *problems, *own)
    return jax.lax.map(lambda problem: one(*problem), (*problems, *own), batch_size=_LANES)


def estimate_one(
    logits: Array,
    assignment: Array,
    present: Array,
    capacity: Array,
    key: Array,
    precision: Precision,
) -> tuple[Array, Array]:
    """That of one assignment `(n,)`."""
    n, k = logits.shape
    if n == 0:
        return jnp.zeros((), logits.dtype), jnp.zeros((), logits.dtype)
    sound = jnp.all(logits < jnp.inf) & jnp.all(jnp.any(logits > -jnp.inf, axis=1))
    problem = price_problem(jnp.where(sound, logits, 0), assignment, capacity, present)
    if k == 1:
        value, error = jnp.zeros((), logits.dtype), jnp.zeros((), logits.dtype)
    elif k <= BY_QUADRATURE and not precision.by_sampling:
        value, error = by_quadrature(problem)
    else:
        value, error = by_sampling(problem, keys_for(key, precision.num_draws), precision.target_error)
    # Each log-probability is a rounded difference, and equal ones are rounded alike; 1e-8 is what the tests vouch for.
    rounding = jnp.finfo(logits.dtype).eps * (1 + jnp.abs(jax.lax.stop_gradient(value))) + 1e-8
    error = jnp.sqrt(error**2 + rounding**2)
    return (
        jnp.where(sound, jnp.where(problem.possible, value, -jnp.inf), jnp.nan),
        jnp.where(sound, jnp.where(problem.possible, error, 0), jnp.nan),
    )
