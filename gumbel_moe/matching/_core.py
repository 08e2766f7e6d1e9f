"""The core: near the best prices only the most undecided datapoints are in question, so only they are searched."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._prices import Search, cool
from gumbel_moe.matching._repair import repaired, rounded
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import best_experts, count, margin


def match_core(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    found: Search,
    *,
    size: int,
    enough: Array,
    coldest: Array,
    each: int | None = None,
) -> tuple[Search, Array, Array]:
    """Match the `size` most undecided datapoints exactly, with all others held at their best expert, or experts.

    Returns where the search stands, the assignment of all datapoints, and whether there is room for it. It is the best
    one unless one of the others would rather be elsewhere at the new prices; that is left to check.
    """
    k = scores.shape[1]
    shifted = scores - found.prices
    first = best_experts(shifted, each)
    rows = jax.lax.top_k(margin(shifted, first), size)[1]
    core = scores[rows]
    places = capacity - count(first.at[rows].set(k), k)
    # Prices that are far off overfill an expert with datapoints outside the core: no use to search in it then. Where
    # more are undecided than it holds it is asked for in a vmapped batch only: no loop may start.
    fits = (found.undecided <= size) & jnp.all(places >= 0)

    start = found._replace(undecided=jnp.full_like(found.undecided, jnp.inf))
    near = cool(
        core, places, start, full=spare is None, enough=jnp.where(fits, enough, jnp.inf), coldest=coldest, each=each
    )
    plan = rounded(core, places, spare, near.prices, each=each)
    plan = repaired(core, plan._replace(possible=fits), full=spare is None)
    costs = residual_costs(core, plan.assignment, plan.holders > 0)
    prices, _ = lowered(costs, plan.prices)
    near = near._replace(prices=prices, passes=near.passes + plan.steps)
    return near, first.at[rows].set(plan.assignment), plan.possible
