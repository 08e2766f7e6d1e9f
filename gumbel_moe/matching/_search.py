"""The whole search of one problem: cool the prices, match the core, check everybody, mend what is left."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._core import match_core
from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._prices import Search, cool
from gumbel_moe.matching._repair import Plan, repaired, rounded
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import count, own_scores
from gumbel_moe.matching._start import COLD_START, centre_and_spread, first_temperature
from gumbel_moe.matching._ties import break_ties

_CORE_ROWS = 8  # rows of the core per expert
_CORE_WORTHWHILE = 4  # how many times smaller than the problem it has to be
_FEW = 1 / 4  # undecided datapoints per expert at which cooling ends and paths take over
_MANY = 4  # undecided datapoints per expert, at the lowest temperature, that are taken for ties
_ROUNDING = 4  # scores this many units in the last place apart are the same


def search(scores: Array, capacity: Array, spare: Array | None, prices: Array | None) -> tuple[Plan, Array]:
    """The best plan, and the regret left in it, `sum_i max_j (s[i, j] - u_j) - (s[i, z_i] - u_{z_i})`.

    `spare = sum(capacity) - n` free places; None when there are none.
    """
    n, k = scores.shape
    centre, spread = centre_and_spread(scores)
    if prices is None:
        start, tau = centre, COLD_START * spread
        if spare is not None:
            start = jnp.where(spare > 0, jnp.maximum(centre, 0), centre)
    else:
        start, tau = prices, first_temperature(scores, capacity, prices, spread)
    epsilon = float(jnp.finfo(scores.dtype).eps)
    coldest = epsilon**0.85 * spread
    few = _FEW * k
    size = _CORE_ROWS * k
    with_core = n >= _CORE_WORTHWHILE * size
    found = cool(scores, capacity, spare, start, tau, enough=size / 2 if with_core else few, coldest=coldest)

    def without_core(_: None) -> tuple[Plan, Array]:
        # Zero passes where the first search has gone this far already.
        closer = cool(scores, capacity, spare, found.prices, found.tau, enough=few, coldest=coldest)

        def untie(_: None) -> Plan:
            return break_ties(scores, capacity, spare, closer, spread=spread, enough=few, slack=16 * coldest)

        def decide(_: None) -> Plan:
            return rounded(scores, capacity, spare, closer.prices)

        plan = jax.lax.cond(closer.undecided > _MANY * k, untie, decide, None)
        done = repaired(scores, plan)
        # Rounding piles up on the way; optimal prices satisfy `u_p <= u_j + costs[p, j]` on every edge.
        prices, _ = lowered(residual_costs(scores, done.assignment, done.holders > 0), done.prices)
        shifted = scores - prices
        regret = jnp.max(shifted, axis=1) - own_scores(shifted, done.assignment)
        steps = found.passes + closer.passes + done.steps
        return done._replace(prices=prices, steps=steps), jnp.sum(jnp.maximum(regret, 0))

    if not with_core:
        return without_core(None)

    near, assignment, fits = match_core(scores, capacity, spare, found, size=size, enough=few, coldest=coldest)
    shifted = scores - near.prices
    best = jnp.max(shifted, axis=1)
    regret = best - own_scores(shifted, assignment)
    slack = _ROUNDING * epsilon * (jnp.max(jnp.abs(best)) + jnp.max(jnp.abs(near.prices)))

    def accept(_: None) -> tuple[Plan, Array]:
        holders = capacity - count(assignment, k)
        return Plan(assignment, holders, near.prices, jnp.zeros_like(holders), fits, near.passes), jnp.sum(regret)

    return jax.lax.cond(fits & jnp.all(regret <= slack), accept, without_core, None)
