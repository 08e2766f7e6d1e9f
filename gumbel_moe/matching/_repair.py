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

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._paths import from_sources, trace
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import best_expert, count, own_scores


class Plan(NamedTuple):
    """An assignment on the way to optimality; `holders` counts the place-holders of score 0 that fill free places."""

    assignment: Array  # (n,)
    holders: Array  # (k,)
    prices: Array  # (k,)
    excess: Array  # (k,) datapoints and holders above capacity
    possible: Array  # () False once no chain leads from an overfull expert to a free place
    steps: Array  # () chains used


def rounded(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    prices: Array,
    preferred: Array | None = None,
    slack: Array | float = 0,
) -> Plan:
    """Datapoints at their best expert for the prices, holders in the free places of the cheapest experts.

    A datapoint stays at its `preferred` expert where that is within `slack` of the best one. Holders may sit only at
    the lowest price; those that find no room there are excess, as datapoints would be.
    """

    def choose(shifted: Array) -> Array:
        best = best_expert(shifted)
        if preferred is None:
            return best
        return jnp.where(own_scores(shifted, preferred) >= jnp.max(shifted, axis=1) - slack, preferred, best)

    k = scores.shape[1]
    assignment = choose(scores - prices)
    holders = jnp.zeros(k, jnp.int32)
    if spare is not None:
        cheapest = prices <= jnp.min(prices)
        free = jnp.where(cheapest, jnp.maximum(capacity - count(assignment, k), 0), 0)
        holders = jnp.clip(spare - (jnp.cumsum(free, dtype=jnp.int32) - free), 0, free)
        holders = holders.at[jnp.argmax(cheapest)].add(spare - jnp.sum(holders, dtype=jnp.int32))
    excess = count(assignment, k) + holders - capacity
    return Plan(assignment, holders, prices, excess, jnp.array(True), jnp.zeros((), jnp.int32))


def repaired(scores: Array, plan: Plan) -> Plan:
    """The plan without excess, and still optimal for its loads; at most `n + spare` chains, usually few."""

    def unfinished(plan: Plan) -> Array:
        return plan.possible & jnp.any(plan.excess > 0)

    return jax.lax.while_loop(unfinished, partial(_augment, scores), vary_like((scores, plan), plan))


def _augment(scores: Array, plan: Plan) -> Plan:
    k = scores.shape[1]
    assignment, holders, prices, excess, _, steps = plan
    costs = residual_costs(scores, assignment, holders > 0)
    # Non-negative but for rounding; clamped, so that ties cannot form a negative cycle.
    reduced = jnp.maximum(costs - prices[:, None] + prices, 0)
    distance, parent = from_sources(reduced, excess > 0)
    target = jax.lax.argmin(jnp.where(excess < 0, distance, jnp.inf), 0, jnp.int32)
    length = distance[target]
    source, successor = trace(parent, target)

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
    return Plan(moved, holders, prices + rise, excess, possible, steps + 1)


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
