"""Exchange distances: the least loss of score that moves one datapoint from one expert to another, by any chain."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._batch import one_by_one_on_cpu, over_leading_axes
from gumbel_moe._checks import check_capacity, check_matrix
from gumbel_moe.matching._paths import all_pairs
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._solve import Matching, check_problem, check_solved, compiled_with_costs, solve_one


def exchange_distances(scores: ArrayLike, assignment: ArrayLike, capacity: ArrayLike) -> Array:
    r"""All-pairs shortest paths of the residual graph of an optimal assignment.

    With $S_p = \{i : z_i = p\}$, moving one datapoint from expert $p$ to expert $j$ costs
    $W_{pj} = \min_{i \in S_p} (s_{ip} - s_{ij})$; an expert with a free place passes it on at cost 0. The result
    $D_{jp}$ is the length of the shortest path $j \to p$: what the best total score loses when expert $j$ must take
    one datapoint more and expert $p$ one less. It gives the conditional distributions of Gumbel-Matching,
    $q_{ij} = \mathrm{softmax}_j(a_{ij} - D_{j z_i})$ (see the theory page of the documentation).

    Where a datapoint has several experts, a set $Z_i$, the minimum in $W_{pj}$ is over the datapoints that are at $p$
    and not at $j$. Then $j \in Z_i$ is among the experts of $i$ as long as
    $s_{ij} > \max_{l \notin Z_i} (s_{il} - D_{lj})$, all other scores being as they are.

    **Arguments:**

    - `scores`: `(..., n, k)`, as for [`solve_matching`][gumbel_moe.matching.solve_matching].
    - `assignment`: `(..., n)` integers, or `(..., n, m)` with several experts for a datapoint, all different: an
      optimal assignment for `scores` (not checked).
    - `capacity`: an int or `(k,)` ints.

    **Returns:** `(..., k, k)`, zero on the diagonal, `+inf` where no chain leads. Where `assignment` holds a negative
    entry (the mark of a failed matching), NaN.

    **Raises:** `ValueError` or `TypeError` as `solve_matching`, and `ValueError` when the shapes disagree.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.matching import exchange_distances, solve_matching
    >>> scores = jnp.array([[3.0, 1.0], [2.0, 1.5]])
    >>> match = solve_matching(scores, capacity=1)
    >>> exchange_distances(scores, match.assignment, capacity=1).tolist()
    [[0.0, 2.0], [-0.5, 0.0]]

    ```
    """
    scores = check_matrix("scores", scores, integers=True)
    capacity = check_capacity(capacity, scores.shape[-1])
    assignment = as_array("assignment", assignment)
    *batch, n, k = scores.shape
    rows = *batch, n
    several = assignment.ndim == scores.ndim and assignment.shape[:-1] == rows and 1 <= assignment.shape[-1] <= k
    if not (several or assignment.shape == rows) or not jnp.issubdtype(assignment.dtype, jnp.integer):
        allowed, got = f"integers of shape {rows}", f"{assignment.dtype} of shape {assignment.shape}"
        raise ValueError(f"assignment must be {allowed}, or with up to {k} experts in an axis more, got {got}")
    return _all_distances(scores, assignment, jnp.asarray(capacity))


@jax.jit
def _all_distances(scores: Array, assignment: Array, capacity: Array) -> Array:
    single = one_by_one_on_cpu(_distances)
    rank = assignment.ndim - scores.ndim + 2
    return over_leading_axes(lambda s, z: single(s, z, capacity), (2, rank), scores, assignment)


def _distances(scores: Array, assignment: Array, capacity: Array) -> Array:
    """`exchange_distances` of one problem, arguments trusted."""
    load = jnp.zeros(scores.shape[1], jnp.int32).at[assignment].add(1, mode="drop")
    return _shortest(residual_costs(scores, assignment, load < capacity), assignment)


def _shortest(costs: Array, assignment: Array) -> Array:
    return jnp.where(jnp.any(assignment < 0), jnp.nan, all_pairs(costs))


def match_and_distances(
    scores: ArrayLike, capacity: ArrayLike, *, experts_per_datapoint: int | None = None
) -> tuple[Matching, Array]:
    """`solve_matching` and `exchange_distances` at once: the compiled solver has the costs of the latter at hand."""
    scores, places, settings = check_problem(scores, capacity, experts_per_datapoint)
    match, distances = _both(scores, places, **settings)
    check_solved(match)
    return match, distances


@partial(jax.jit, static_argnames=("full", "compiled", "each"))
def _both(
    scores: Array, capacity: Array, *, full: bool, compiled: bool, each: int | None = None
) -> tuple[Matching, Array]:
    def by_search(scores: Array, capacity: Array) -> tuple[Matching, Array]:
        match = solve_one(scores, capacity, full=full, each=each)
        return match, _distances(scores, match.assignment, capacity)

    def compiled_both(scores: Array, capacity: Array) -> tuple[Matching, Array]:
        match, costs = compiled_with_costs(scores, capacity, each=each)
        return match, _shortest(costs, match.assignment)

    single = one_by_one_on_cpu(by_search, compiled_both if compiled else None)
    scores, capacity = jax.lax.stop_gradient((scores, capacity))
    return over_leading_axes(lambda s: single(s, capacity), (2,), scores)
