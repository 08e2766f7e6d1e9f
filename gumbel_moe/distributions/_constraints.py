"""Constraints: the arguments and the supports of the assignment distributions."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint, ParameterFreeConstraint

from gumbel_moe._arrays import is_traced
from gumbel_moe._experts import count
from gumbel_moe.distributions._capacities import common_capacity


class _Logits(Constraint):
    """`(n, k)` logits: no NaN, no +inf, and at least one expert allowed (above -inf) for every datapoint."""

    event_dim = 2

    def __call__(self, x: ArrayLike) -> Array:
        x = jnp.asarray(x)
        return jnp.all(x < jnp.inf, axis=(-2, -1)) & jnp.all(jnp.any(x > -jnp.inf, axis=-1), axis=-1)

    def feasible_like(self, prototype: ArrayLike) -> Array:
        return jnp.zeros_like(prototype)

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, _Logits)

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return (), ((), {})


logits_matrix = _Logits()
capacities = constraints.independent(constraints.positive_integer, 1)


class _Capacitated(Constraint):
    """Shared by both supports: `(n,)` integers that say which of `k` experts handles which datapoint."""

    is_discrete = True
    event_dim = 1
    skips: ClassVar[bool]
    present: Array | None = None

    def __init__(self, capacity: Any, present: Array | None = None) -> None:
        self.capacity = capacity
        self.present = present

    def __repr__(self) -> str:
        capacity = self.capacity if is_traced(self.capacity) else np.asarray(self.capacity)
        mask = "" if self.present is None else f", mask={self.present}"
        return f"{type(self).__name__[1:]}(capacity={capacity}{mask})"

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return (self.capacity, self.present), (("capacity", "present"), {})

    def eq(self, other: object, static: bool = False) -> Any:
        if not isinstance(other, _Capacitated) or other.skips != self.skips:
            return False
        if (self.present is None) != (other.present is None):
            return False
        equal = np if static else jnp
        pairs: list[tuple[Any, Any]] = [(self.capacity, other.capacity)]
        if self.present is not None:
            pairs.append((self.present, other.present))
        if any(np.shape(mine) != np.shape(others) for mine, others in pairs):
            return False
        same = [equal.array_equal(mine, others) for mine, others in pairs]
        return same[0] if len(same) == 1 else same[0] & same[1]

    def _in_order(self, prototype: ArrayLike) -> tuple[Array, Array]:
        """Experts filled one after the other, `k` for who does not take part; and who is beyond all of them."""
        shape = jnp.shape(prototype)
        ends = jnp.cumsum(jnp.minimum(jnp.asarray(self.capacity), shape[-1] + 1), axis=-1)
        present = jnp.ones(shape[-1], bool) if self.present is None else self.present
        position = jnp.broadcast_to(jnp.cumsum(present, axis=-1, dtype=jnp.int32) - 1, shape)
        search = jnp.vectorize(partial(jnp.searchsorted, side="right"), signature="(k),(n)->(n)")
        expert = jnp.where(present, search(ends, position).astype(jnp.int32), ends.shape[-1])
        return expert, present & (position >= ends[..., -1:])


def takes_part(x: Array, num_experts: int, present: Array | None) -> Array:
    """Where `x` is right about who takes part: whoever does not has no expert, which is the number `k`."""
    return (x == num_experts) == (False if present is None else ~present)


@jax.jit
def is_balanced(x: Array, capacity: Array, present: Array | None) -> Array:
    k = capacity.shape[-1]
    known = (x >= 0) & (x <= k) & (x == jnp.floor(x)) & takes_part(x, k, present)
    return jnp.all(known, axis=-1) & jnp.all(count(x, k) <= capacity, axis=-1)


@jax.jit
def is_skipped(x: Array, capacity: Array, present: Array | None) -> Array:
    k = capacity.shape[-1]
    kept, expert = x >= 0, jnp.where(x < 0, -1 - x, x)
    known = (x >= -k) & (x <= k) & (x == jnp.floor(x)) & takes_part(x, k, present)
    full = jnp.minimum(count(expert, k), capacity)
    return jnp.all(known, axis=-1) & jnp.all(count(expert, k, kept) == full, axis=-1)


def _seen(check: Callable[..., Array], x: ArrayLike, on: _Capacitated) -> Array | np.ndarray:
    """The check, in NumPy if nothing is traced: a constant outside the support is then noticed even inside `jit`."""
    if is_traced(x, on.capacity, on.present):
        return check(jnp.asarray(x), jnp.asarray(on.capacity), on.present)
    with jax.ensure_compile_time_eval():
        return np.asarray(check(jnp.asarray(x), jnp.asarray(on.capacity), on.present))


class _BalancedAssignment(_Capacitated):
    """Expert indices with at most `capacity[..., j]` datapoints at expert `j`; `k` for who takes no part."""

    skips = False

    def __call__(self, x: ArrayLike) -> Array | np.ndarray:
        return _seen(is_balanced, x, self)

    def feasible_like(self, prototype: ArrayLike) -> Array:
        return self._in_order(prototype)[0]


class _SkippedAssignment(_Capacitated):
    """Drawn experts, `~j` if skipped: expert `j` keeps exactly `min(drawn, capacity[..., j])`; `k` if left out."""

    skips = True

    def __call__(self, x: ArrayLike) -> Array | np.ndarray:
        return _seen(is_skipped, x, self)

    def feasible_like(self, prototype: ArrayLike) -> Array:
        expert, beyond = self._in_order(prototype)
        return jnp.where(beyond, ~0, expert)


class _Fixed(_Capacitated, ParameterFreeConstraint):
    """A known capacity, one for the whole batch, is no parameter: NumPyro mixes components with such supports alone."""

    def tree_flatten(self) -> tuple[tuple, tuple]:
        return (), ((), {"capacity": self.capacity})


class _FixedBalancedAssignment(_Fixed, _BalancedAssignment):
    pass


class _FixedSkippedAssignment(_Fixed, _SkippedAssignment):
    pass


def balanced_assignment(capacity: Any, present: Array | None = None) -> Constraint:
    """The support of Gumbel-Matching, and of the uniform assignment, for capacities `(..., k)`."""
    return _support(_BalancedAssignment, _FixedBalancedAssignment, capacity, present)


def skipped_assignment(capacity: Any, present: Array | None = None) -> Constraint:
    """The support of the skip process for capacities `(..., k)`."""
    return _support(_SkippedAssignment, _FixedSkippedAssignment, capacity, present)


def _support(
    varying: type[_Capacitated], fixed: type[_Capacitated], capacity: Any, present: Array | None
) -> Constraint:
    common = common_capacity(capacity)
    if common is None or is_traced(common) or present is not None:
        return varying(capacity if common is None else common, present)
    return fixed(tuple(np.asarray(common).tolist()))
