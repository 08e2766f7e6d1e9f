"""Shortest paths on the residual graph, whose nodes are the experts."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._rows import scatter_add, take


def from_sources(costs: Array, is_source: Array) -> tuple[Array, Array]:
    """Bellman-Ford from all sources at once: distances and predecessors (-1 at sources and where no path leads).

    No cost is negative, and those from an expert to itself are 0.
    """
    k = costs.shape[0]
    index = jnp.arange(k, dtype=jnp.int32)[:, None]

    def relax(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        distance, parent, _ = carry
        through = distance[:, None] + costs
        best = jnp.min(through, axis=0)  # no more than the distance, as staying costs 0
        # Predecessors change on strict improvement only, so that edges of cost 0 cannot close a loop.
        better = best < distance
        parent = jnp.where(better, jnp.min(jnp.where(through <= best, index, k), axis=0), parent)
        return best, parent, jnp.any(better)

    start = jnp.where(is_source, 0, jnp.inf).astype(costs.dtype)
    carry = (start, jnp.full(k, -1, jnp.int32), jnp.array(True))
    distance, parent, _ = jax.lax.while_loop(lambda c: c[2], relax, vary_like((costs, is_source), carry))
    return distance, parent


def ancestors(parent: Array) -> list[Array]:
    """The expert 1, 2, 4, ... steps back on the path to every expert, or the path's first one where it is shorter.

    The last of them is the first expert of every path.
    """
    k = parent.shape[0]
    back = jnp.where(parent < 0, jnp.arange(k, dtype=jnp.int32), parent)
    jumps = [back]
    for _ in range(max(k - 2, 0).bit_length()):  # paths have up to k - 1 edges
        jumps.append(take(jumps[-1], jumps[-1]))
    return jumps


def successors(parent: Array, jumps: list[Array], targets: Array) -> Array:
    """The next expert after each one on the path to one of the targets, or `k` off the paths and at their ends.

    `jumps` are the `ancestors`. The paths must not share an expert.
    """
    k = parent.shape[0]
    on_path = scatter_add(k, targets, 1)
    for back in jumps:
        on_path = on_path.at[back].max(on_path, mode="promise_in_bounds", wrap_negative_indices=False)
    before = jnp.where((on_path > 0) & (parent >= 0), parent, k)
    index = jnp.arange(k, dtype=jnp.int32)
    return jnp.full(k, k, jnp.int32).at[before].set(index, mode="drop", wrap_negative_indices=False)


def lowered(costs: Array, prices: Array, most: int | None = None) -> tuple[Array, Array]:
    """Prices with `u_p <= u_j + costs[p, j]` on every edge, by lowering those that violate it, and whether they exist.

    They exist when no cycle is negative: the assignment behind the costs is then the best one for its loads. With
    `most` rounds, fewer than a path may have edges, that they exist can be missed.
    """
    most = costs.shape[0] if most is None else min(most, costs.shape[0])

    def lower(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        prices, _, rounds = carry
        lower = jnp.min(costs + prices, axis=1)
        return lower, jnp.any(lower < prices), rounds + 1

    carry = vary_like((costs, prices), (prices, jnp.array(True), jnp.zeros((), jnp.int32)))
    prices, unsettled, _ = jax.lax.while_loop(lambda c: c[1] & (c[2] <= most), lower, carry)
    return prices, ~unsettled


def all_pairs(costs: Array) -> Array:
    """Lengths `(k, k)` of the shortest paths between all pairs.

    On a CPU by Floyd and Warshall's algorithm, which has the least work; elsewhere in fewer sequential steps.
    """
    return jax.lax.platform_dependent(costs, cpu=by_intermediates, default=by_squaring)


def by_intermediates(costs: Array) -> Array:
    """Floyd and Warshall: paths may pass through one more expert in every round, of which there are `k`.

    On reduced costs, as Johnson does: where rounding leaves a cycle a hair below 0, each round would double it.
    """
    prices, _ = lowered(costs, jnp.zeros(costs.shape[0], costs.dtype))
    reduced = jnp.maximum(costs - prices[:, None] + prices, 0)

    def allow(expert: Array, best: Array) -> Array:
        return jnp.minimum(best, best[:, expert, None] + best[expert])

    best = jax.lax.fori_loop(0, costs.shape[0], allow, reduced)
    return jnp.where(jnp.eye(costs.shape[0], dtype=bool), 0, best + prices[:, None] - prices)


def by_squaring(costs: Array) -> Array:
    """Each min-plus squaring of the costs doubles the number of edges a path may have, so `log2(k)` are enough.

    Shortest paths between experts rarely have more than a few edges; it ends when nothing changes.
    """
    k = costs.shape[0]

    def square(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        best, _, rounds = carry
        through = jnp.min(best[:, :, None] + best[None], axis=1)
        return through, jnp.any(through < best), rounds + 1

    most = max(k - 2, 0).bit_length()  # paths have up to k - 1 edges
    carry = vary_like(costs, (costs, jnp.array(True), jnp.zeros((), jnp.int32)))
    best, _, _ = jax.lax.while_loop(lambda c: c[1] & (c[2] < most), square, carry)
    # Rounding can leave a cycle a hair below 0, where there is none in exact arithmetic.
    return jnp.where(jnp.eye(k, dtype=bool), 0, best)
