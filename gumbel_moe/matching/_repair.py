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
from gumbel_moe.matching._paths import ancestors, from_sources, successors
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import best_experts, count, held, own_scores, regret, scatter_add, take


class Plan(NamedTuple):
    """An assignment on the way to optimality; `holders` counts the place-holders of score 0 that fill free places."""

    assignment: Array  # (n,), or (n, each) with several experts for a datapoint
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
    each: int | None = None,
) -> Plan:
    """Datapoints at their best expert, or experts, for the prices, holders in the free places of the cheapest experts.

    A datapoint stays at its `preferred` expert where that is within `slack` of the best one. Holders may sit only at
    the lowest price; those that find no room there are excess, as datapoints would be.
    """

    def choose(shifted: Array) -> Array:
        best = best_experts(shifted, each)
        if preferred is None:
            return best
        if each is not None:
            return jnp.where((regret(shifted, preferred) <= slack)[:, None], preferred, best)
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


def repaired(scores: Array, plan: Plan, *, full: bool) -> Plan:
    """The plan without excess, and still optimal for its loads; at most as many chains as places, usually few.

    `full`: there are no place-holders.
    """

    def unfinished(plan: Plan) -> Array:
        return plan.possible & jnp.any(plan.excess > 0)

    return jax.lax.while_loop(unfinished, partial(_augment, scores, full=full), vary_like((scores, plan), plan))


def _augment(scores: Array, plan: Plan, *, full: bool) -> Plan:
    """One chain from every overfull expert to the nearest expert with room, where it is nearer to no other of them.

    Such chains share no expert, so all are used at once. A datapoint of several experts can move along two edges: they
    do not meet, as it is at the beginning of each and at the end of none.
    """
    k = scores.shape[1]
    assignment, holders, prices, excess, _, steps = plan
    costs = residual_costs(scores, assignment, holders > 0)
    # Non-negative but for rounding; clamped, so that ties cannot form a negative cycle.
    reduced = jnp.maximum(costs - prices[:, None] + prices, 0)
    distance, parent = from_sources(reduced, excess > 0)
    jumps = ancestors(parent)
    source = jumps[-1]
    index = jnp.arange(k, dtype=jnp.int32)
    same = source[:, None] == index
    to_room = jnp.where(same & (excess < 0)[:, None], distance[:, None], jnp.inf)
    length = jnp.min(to_room, axis=0)
    found = length < jnp.inf
    target = jnp.where(found, jax.lax.argmin(to_room, 0, jnp.int32), source)
    successor = successors(parent, jumps, target)

    # Every datapoint (or holder) at the cost of its edge can move along it: as many go at once as all edges allow.
    onward = take(successor, assignment)
    there = jnp.minimum(onward, k - 1)
    loss = own_scores(scores, assignment) - own_scores(scores, there)
    on_path = successor < k
    edge_cost = own_scores(costs, jnp.minimum(successor, k - 1))
    eligible = (onward < k) & (loss == take(edge_cost, assignment))
    if assignment.ndim == 2:
        eligible = eligible & ~own_scores(held(assignment, k), there)
    supply = scatter_add(k, assignment, eligible.astype(jnp.int32))
    by_holder = jnp.zeros(k, bool) if full else on_path & (holders > 0) & (edge_cost >= 0)
    if not full:
        supply = jnp.where(by_holder, holders, supply)
        eligible = eligible & ~take(by_holder, assignment)
    room = jnp.where(found, jnp.minimum(excess, -take(excess, target)), 0)
    units = jnp.minimum(room, jnp.min(jnp.where(same & on_path[:, None], supply[:, None], room), axis=0))
    moving = take(units, source)

    several = jnp.any(units > 1)
    ranks = partial(_rank_by_sorting, k=k), partial(_rank_of_first, k=k)
    rank = jax.lax.cond(several, *ranks, assignment.reshape(-1), eligible.reshape(-1)).reshape(assignment.shape)
    moved = jnp.where(eligible & (rank < take(moving, assignment)), onward, assignment)
    if not full:
        shift = jnp.where(by_holder, moving, 0)
        holders = holders - shift + scatter_add(k, successor, shift)
    excess = excess - units + scatter_add(k, target, units)
    used = jnp.sum(units > 0, dtype=jnp.int32)
    rise = jnp.maximum(jnp.max(jnp.where(units > 0, length, 0)) - distance, 0)
    return Plan(moved, holders, prices + rise, excess, used > 0, steps + used)


def _rank_of_first(assignment: Array, eligible: Array, k: int) -> Array:
    """0 for the first eligible datapoint of every expert, at least `n` for all others."""
    n = assignment.shape[0]
    index = jnp.arange(n, dtype=jnp.int32)
    first = jax.ops.segment_min(jnp.where(eligible, index, n), assignment, num_segments=k)
    return jnp.where(index == take(first, assignment), 0, index + n)


def _rank_by_sorting(assignment: Array, eligible: Array, k: int) -> Array:
    """Position of every eligible datapoint among those of its expert."""
    n = assignment.shape[0]
    key = jnp.where(eligible, assignment, k)
    order = jnp.argsort(key, stable=True)
    counts = scatter_add(k + 1, key, 1)
    first = jnp.cumsum(counts, dtype=jnp.int32) - counts
    return jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32) - take(first, take(key, order)))
