"""`solve_matching`: the exact capacitated assignment of datapoints to experts, with its certificate."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._batch import one_by_one_on_cpu, over_leading_axes
from gumbel_moe._checks import check_capacity, check_matrix, check_pairs, check_positive_int, check_room, is_traced
from gumbel_moe.matching._compiled import successive_paths, suits
from gumbel_moe.matching._levels import search_levels
from gumbel_moe.matching._repair import Plan
from gumbel_moe.matching._rows import anywhere, own_scores, total
from gumbel_moe.matching._two_experts import two_experts


class Matching(NamedTuple):
    """What [`solve_matching`][gumbel_moe.matching.solve_matching] returns, a pytree of arrays."""

    assignment: Array
    """`(..., n)` int32: the expert of every datapoint; with `experts_per_datapoint`, `(..., n, m)`: its experts in
    ascending order; -1 throughout when there is no matching."""
    prices: Array
    """`(..., k)` optimal dual prices, at least 0, and 0 at every expert with a free place; with scores near the float's
    largest number they are rounded, and `gap` says what that costs."""
    value: Array
    """`(...,)` total score; `-inf` when no matching is feasible, NaN for NaN or +inf scores. A total beyond the float's
    range is infinite, of its sign; the assignment is then still -1 only where there is none."""
    gap: Array
    """`(...,)` duality gap at `prices`, at least 0 and 0 but for rounding: the certificate of optimality. Large or
    infinite where scores span so much of the float's range that the search ends without a proof."""
    steps: Array
    """`(...,)` int32: sequential work done: augmenting paths, and passes over the scores or a core of them."""


def solve_matching(
    scores: ArrayLike,
    capacity: ArrayLike,
    *,
    prices: ArrayLike | None = None,
    experts_per_datapoint: int | None = None,
) -> Matching:
    r"""The assignment of `n` datapoints to `k` experts of limited capacity that has the largest total score, exactly.

    $$\max_z \sum_i s_{i z_i} \quad \text{subject to} \quad \#\{i : z_i = j\} \le c_j .$$

    The dual, $\min_{u \ge 0} \sum_i \max_j (s_{ij} - u_j) + \sum_j c_j u_j$, prices the experts; the returned
    prices prove the assignment optimal by closing the gap between the two. Newton's method on the smoothed dual finds
    prices close to the optimum, augmenting paths on the `k` experts make them exact; for two experts a sort does both.
    On a CPU, a compiled solver takes all but very large problems, by augmenting paths from the start (see the page on
    the matching in the documentation). Memory is `O(n k + k^2)`: the expert columns are never expanded. Works under
    `jit` and `vmap`, which on a CPU loops over the problems; the assignment is piecewise constant in the scores, and no
    gradient flows through any of the results.

    With `experts_per_datapoint` $m$, every datapoint gets $m$ distinct experts,

    $$\max_x \sum_{ij} s_{ij} x_{ij} \quad \text{subject to} \quad x_{ij} \in \{0, 1\}, \quad \sum_j x_{ij} = m, \quad
    \sum_i x_{ij} \le c_j ,$$

    and the sum of the $m$ largest $s_{ij} - u_j$ takes the place of the maximum in the dual. The methods are the same,
    but the search, which accelerators run, then needs memory `O(n m k)`.

    **Arguments:**

    - `scores`: `(..., n, k)`; any leading axes are separate problems. `-inf` forbids an expert for a datapoint; a huge
      finite score instead, such as -1e30, costs the others no precision where it is not needed, and is used only where
      it has to be; then the compiled solver, which adds in double precision, tells the others apart down to 1e-16 of
      it. Integers are turned to floats, half precision to float32.
    - `capacity`: an int, or `(k,)` ints, at least 1; `sum(capacity) >= n`, or with several experts for a datapoint
      `sum(minimum(capacity, n)) >= n m`.
    - `prices`: `(..., k)` or `(k,)`, where to start: those of a similar problem, such as the last training step's, save
      steps. They change the time, never the optimum (between equally good assignments they may
      decide). Where they are not finite, as those of a failed matching, they are not used.
    - `experts_per_datapoint`: $m$, an int from 1 to `k`. None: one, without an axis for it. Where the compiled solver
      is not used, a score that is 1e7 times as far above a datapoint's others as these from each other hides how they
      differ, as rounding would.

    **Returns:** a [`Matching`][gumbel_moe.matching.Matching]: `assignment`, `prices`, `value`, `gap`, `steps`.

    **Raises:** `ValueError` when a capacity is no positive integer, the capacities cannot hold `n` datapoints of $m$
    experts each, `experts_per_datapoint` is no integer from 1 to `k`, `scores` has fewer than two axes or holds NaN or
    `+inf`, `prices` have another shape, or the forbidden experts leave no feasible matching; `TypeError` when `scores`
    or `prices` are no real numbers. Under `jit` values cannot raise: without a feasible matching `assignment` is -1,
    `value` is `-inf`, and `prices` and `gap` are NaN; for NaN or `+inf` scores `value` is NaN as well.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.matching import solve_matching
    >>> match = solve_matching(jnp.array([[3.0, 1.0], [2.0, 1.5], [2.5, 0.0]]), capacity=(2, 1))
    >>> match.assignment.tolist(), float(match.value)
    ([0, 1, 0], 7.0)
    >>> scores = jnp.array([[3.0, 1.0, 0.0], [2.0, 1.5, 1.0]])
    >>> match = solve_matching(scores, capacity=(1, 2, 1), experts_per_datapoint=2)
    >>> match.assignment.tolist(), float(match.value)
    ([[0, 1], [1, 2]], 6.5)

    ```

    Reference: the capacitated assignment problem is the transportation problem with unit supplies; successive shortest
    paths are in R. K. Ahuja, T. L. Magnanti, J. B. Orlin, *Network Flows* (1993), section 9.7.
    """
    scores, places, settings = check_problem(scores, capacity, experts_per_datapoint)
    match = _solve(scores, places, _check_prices(prices, scores), **settings)
    check_solved(match)
    return match


def check_problem(
    scores: ArrayLike, capacity: ArrayLike, experts_per_datapoint: int | None = None
) -> tuple[Array, Array, dict[str, Any]]:
    """The arguments as arrays, and what is known about the problem when it is traced."""
    scores = check_matrix("scores", scores, integers=True)
    n, k = scores.shape[-2:]
    capacity = check_capacity(capacity, k)
    each = experts_per_datapoint
    if each is not None:
        each = check_positive_int("experts_per_datapoint", each)
        if each > k:
            raise ValueError(f"experts_per_datapoint must be at most {k}, as many as there are experts, got {each}")
    if each is None or each == 1:
        check_room(capacity, n)
    else:
        check_pairs(capacity, n, each)
    full = not is_traced(capacity) and int(np.sum(capacity, dtype=np.int64)) == n * (each or 1)
    return scores, jnp.asarray(capacity), {"full": full, "compiled": suits(n, k, each), "each": each}


def check_solved(match: Matching) -> None:
    """Refuse problems without a feasible matching, if their values can be looked at."""
    if is_traced(match.value):
        return
    unsolved = np.isneginf(np.asarray(match.value))  # or finite scores have a total that is too low for the type
    without = np.asarray(match.assignment) < 0
    if (unsolved.reshape(unsolved.shape + (1,) * (without.ndim - unsolved.ndim)) & without).any():
        raise ValueError("scores leave no feasible matching: too many experts are forbidden (-inf) for the capacities")


def _check_prices(prices: ArrayLike | None, scores: Array) -> Array | None:
    if prices is None:
        return None
    array = jnp.asarray(prices)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"prices must be real numbers, got dtype {array.dtype}")
    *batch, _, k = scores.shape
    shape = (*batch, k)
    if array.shape not in (shape, (k,)):
        raise ValueError(f"prices must have shape {shape} or ({k},), got shape {array.shape}")
    return jnp.broadcast_to(array.astype(scores.dtype), shape)


@partial(jax.jit, static_argnames=("full", "compiled", "each"))
def _solve(
    scores: Array, capacity: Array, prices: Array | None, *, full: bool, compiled: bool, each: int | None = None
) -> Matching:
    scores, capacity, prices = jax.lax.stop_gradient((scores, capacity, prices))
    on_cpu = partial(solve_compiled, each=each) if compiled else None
    single = one_by_one_on_cpu(partial(solve_one, full=full, each=each), on_cpu)
    if prices is None:
        return over_leading_axes(lambda s: single(s, capacity), (2,), scores)
    return over_leading_axes(lambda s, u: single(s, capacity, u), (2, 1), scores, prices)


def solve_compiled(scores: Array, capacity: Array, prices: Array | None = None, *, each: int | None = None) -> Matching:
    """`solve_one` on a CPU."""
    return compiled_with_costs(scores, capacity, prices, each=each)[0]


def compiled_with_costs(
    scores: Array, capacity: Array, prices: Array | None = None, *, each: int | None = None
) -> tuple[Matching, Array]:
    """The same, with the residual costs `(k, k)`."""
    fields, costs = successive_paths(scores, capacity, prices, each=None if each == 1 else each)
    match = Matching(*fields)
    return (with_axis(match) if each == 1 else match), costs


def with_axis(match: Matching) -> Matching:
    """Of one expert for every datapoint, with an axis for it."""
    return match._replace(assignment=match.assignment[:, None])


def solve_one(
    scores: Array, capacity: Array, prices: Array | None = None, *, full: bool = False, each: int | None = None
) -> Matching:
    """`solve_matching` of one problem `(n, k)`, arguments trusted but for what a tracer can hide.

    `full`: the capacities are known to have room for no more than the `n` datapoints, or the `n each` pairs.
    """
    if each == 1:
        return with_axis(solve_one(scores, capacity, prices, full=full))
    n, k = scores.shape
    if n == 0:
        nothing = jnp.zeros((), scores.dtype)
        no_steps = jnp.zeros((), jnp.int32)
        return Matching(anywhere(n, each), jnp.zeros(k, scores.dtype), nothing, nothing, no_steps)
    # More than n + 1 places are never told apart: an expert with room for all still has a free place.
    capacity = jnp.clip(capacity, 0, n + 1)
    pairs = n * (each or 1)
    spare = jnp.sum(capacity, dtype=jnp.int32) - pairs
    top = jnp.max(scores, axis=1)  # may have dropped a NaN, which the sum below brings back
    below = jnp.sum(scores - jnp.where(jnp.isfinite(top), top, 0)[:, None])
    sound = jnp.all(top < jnp.inf) & ~jnp.isnan(below)
    if each is None:
        solvable = sound & (spare >= 0) & jnp.all(top > -jnp.inf)
    else:
        room = jnp.sum(jnp.minimum(capacity, n), dtype=jnp.int32)
        allowed = jnp.sum(scores > -jnp.inf, axis=1, dtype=jnp.int32)
        solvable = sound & (room >= pairs) & jnp.all(allowed >= each)
    # An insoluble problem becomes a trivial one.
    if not full:
        capacity = jnp.where(solvable, capacity, n)
    spare = None if full else jnp.where(solvable, spare, n * k - pairs)
    if each == k:
        plan, gap = _everybody_everywhere(scores)
    elif k == 2:
        plan, gap = two_experts(jnp.where(solvable, scores, 0), capacity)
    else:
        plan, gap = search_levels(scores, top, solvable, capacity, spare, prices, each)
        if each is not None:
            plan = plan._replace(assignment=jnp.sort(plan.assignment, axis=1))
    value = total(own_scores(scores, plan.assignment).reshape(-1))
    solved = solvable & plan.possible
    return Matching(
        assignment=jnp.where(solved, plan.assignment, -1),
        prices=jnp.where(solved, plan.prices, jnp.nan),
        value=jnp.where(solved, value, jnp.where(sound, -jnp.inf, jnp.nan)),
        gap=jnp.where(solved, gap, jnp.nan),
        steps=plan.steps,
    )


def _everybody_everywhere(scores: Array) -> tuple[Plan, Array]:
    """As many experts for every datapoint as there are: nothing is left to choose, and prices of 0 are optimal."""
    n, k = scores.shape
    nobody = jnp.zeros(k, jnp.int32)
    nothing = jnp.zeros((), scores.dtype)
    return Plan(anywhere(n, k), nobody, jnp.zeros(k, scores.dtype), nobody, jnp.array(True), nobody[0]), nothing
