"""Exact repair: from any prices to the best assignment, by shortest augmenting paths between experts.

Rounding `argmax_j (s[i, j] - u_j)` is optimal for the loads it happens to give, at any prices `u`. What remains is to
move datapoints from overfull experts to those with room, each time along a cheapest chain of experts; the prices
follow, so that the assignment stays optimal for its loads throughout (successive shortest paths).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._residual import own_scores, residual_costs


class Repaired(NamedTuple):
    """An assignment on the way to optimality; `holders` counts the place-holders of score 0 that fill free places."""

    assignment: Array  # (n,)
    holders: Array  # (k,)
    prices: Array  # (k,)
    excess: Array  # (k,) datapoints and holders above capacity
    possible: Array  # () False once no chain leads from an overfull expert to a free place
    steps: Array  # () chains used


def repair(scores: Array, capacity: Array, spare: Array, prices: Array) -> Repaired:
    """The best assignment of one problem, starting at any finite `prices`; at most `n + spare` chains, usually few."""
    start = _rounded(scores, capacity, spare, prices)

    def unfinished(state: Repaired) -> Array:
        return state.possible & jnp.any(state.excess > 0)

    return jax.lax.while_loop(unfinished, lambda state: _augment(scores, state), start)


def _best_expert(values: Array) -> Array:
    """First maximum along the last axis; two plain reductions, which XLA runs faster than its argmax on a CPU."""
    k = values.shape[-1]
    best = jnp.max(values, axis=-1, keepdims=True)
    return jnp.min(jnp.where(values >= best, jnp.arange(k, dtype=jnp.int32), k - 1), axis=-1)


def _load(assignment: Array, k: int) -> Array:
    return jnp.zeros(k, jnp.int32).at[assignment].add(1)


def _rounded(scores: Array, capacity: Array, spare: Array, prices: Array) -> Repaired:
    """Datapoints at their best expert for the prices, holders in the free places of the cheapest experts.

    Holders may sit only at the lowest price, so the cheapest experts are first raised to one common level: the lowest
    at which their free places held all the holders. Holders that find no room there after that are excess, as
    datapoints would be.
    """
    k = scores.shape[1]

    def free_places(assignment: Array) -> Array:
        return jnp.maximum(capacity - _load(assignment, k), 0)

    def raised(_: None) -> tuple[Array, Array]:
        order = jnp.argsort(prices)
        held = jnp.cumsum(free_places(_best_expert(scores - prices))[order], dtype=jnp.int32)
        lifted = jnp.maximum(prices, prices[order][jnp.argmax(held >= spare)])
        return lifted, _best_expert(scores - lifted)

    def plain(_: None) -> tuple[Array, Array]:
        return prices, _best_expert(scores - prices)

    prices, assignment = jax.lax.cond(spare > 0, raised, plain, None)
    cheapest = prices <= jnp.min(prices)
    free = jnp.where(cheapest, free_places(assignment), 0)
    holders = jnp.clip(spare - (jnp.cumsum(free, dtype=jnp.int32) - free), 0, free)
    holders = holders.at[jnp.argmax(cheapest)].add(spare - jnp.sum(holders, dtype=jnp.int32))
    excess = _load(assignment, k) + holders - capacity
    return Repaired(assignment, holders, prices, excess, jnp.array(True), jnp.zeros((), jnp.int32))


def _augment(scores: Array, state: Repaired) -> Repaired:
    k = scores.shape[1]
    assignment, holders, prices, excess, _, steps = state
    costs = residual_costs(scores, assignment, holders > 0)
    # Non-negative but for rounding; clamped, so that ties cannot form a negative cycle.
    reduced = jnp.maximum(costs - prices[:, None] + prices, 0)
    distance, parent = _shortest_paths(reduced, excess > 0)
    target = jax.lax.argmin(jnp.where(excess < 0, distance, jnp.inf), 0, jnp.int32)
    length = distance[target]
    source, successor = _trace(parent, target)

    # Every datapoint (or holder) at the cost of its edge can move along it: as many go at once as all edges allow.
    onward = successor[assignment]
    regret = own_scores(scores, assignment) - own_scores(scores, jnp.maximum(onward, 0))
    on_path = successor >= 0
    edge_cost = costs[jnp.arange(k), jnp.maximum(successor, 0)]
    by_holder = on_path & (holders > 0) & (edge_cost >= 0)
    tight = (onward >= 0) & (regret == edge_cost[assignment])
    supply = jnp.where(by_holder, holders, jnp.zeros(k, jnp.int32).at[assignment].add(tight.astype(jnp.int32)))
    room = jnp.minimum(excess[source], -excess[target])
    units = jnp.minimum(room, jnp.min(jnp.where(on_path, supply, room)))
    possible = jnp.isfinite(length) & (units > 0)
    units = jnp.where(possible, units, 0)

    eligible = tight & ~by_holder[assignment]
    rank = jax.lax.cond(units > 1, partial(_rank_by_sorting, k=k), partial(_rank_of_first, k=k), assignment, eligible)
    moved = jnp.where(eligible & (rank < units), onward, assignment)
    shift = jnp.where(by_holder, units, 0)
    holders = holders - shift + jnp.zeros_like(holders).at[successor].add(shift, mode="drop")
    excess = excess.at[source].add(-units).at[target].add(units)
    rise = jnp.where(possible, jnp.maximum(length - distance, 0), 0)
    return Repaired(moved, holders, prices + rise, excess, possible, steps + 1)


def _shortest_paths(reduced: Array, is_source: Array) -> tuple[Array, Array]:
    """Bellman-Ford from all sources at once: distances and predecessors (-1 at sources and where no path leads)."""
    k = reduced.shape[0]

    def relax(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        distance, parent, _, rounds = carry
        through = distance[:, None] + reduced
        best = jnp.min(through, axis=0)
        better = best < distance
        # Predecessors change on strict improvement only, so that edges of cost 0 cannot close a loop.
        parent = jnp.where(better, jax.lax.argmin(through, 0, jnp.int32), parent)
        return jnp.minimum(best, distance), parent, jnp.any(better), rounds + 1

    start = jnp.where(is_source, 0, jnp.inf).astype(reduced.dtype)
    carry = (start, jnp.full(k, -1, jnp.int32), jnp.array(True), jnp.zeros((), jnp.int32))
    distance, parent, _, _ = jax.lax.while_loop(lambda c: c[2] & (c[3] < k), relax, carry)
    return distance, parent


def _trace(parent: Array, target: Array) -> tuple[Array, Array]:
    """The path's first expert, and `successor[p]`: the next expert after `p`, or a value below 0 off the path."""
    k = parent.shape[0]

    def back(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        here, successor = carry
        return parent[here], successor.at[parent[here]].set(here)

    successor = jnp.full(k, -k - 1, jnp.int32)
    return jax.lax.while_loop(lambda c: parent[c[0]] >= 0, back, (target, successor))


def _rank_of_first(assignment: Array, eligible: Array, k: int) -> Array:
    """0 for the first eligible datapoint of every expert, at least `n` for all others."""
    n = assignment.shape[0]
    index = jnp.arange(n, dtype=jnp.int32)
    first = jax.ops.segment_min(jnp.where(eligible, index, n), assignment, num_segments=k)
    return jnp.where(index == first[assignment], 0, index + n)


def _rank_by_sorting(assignment: Array, eligible: Array, k: int) -> Array:
    """Position of every eligible datapoint among those of its expert."""
    n = assignment.shape[0]
    key = jnp.where(eligible, assignment, k)
    order = jnp.argsort(key, stable=True)
    counts = jnp.zeros(k + 1, jnp.int32).at[key].add(1)
    first = jnp.cumsum(counts, dtype=jnp.int32) - counts
    return jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32) - first[key[order]])
