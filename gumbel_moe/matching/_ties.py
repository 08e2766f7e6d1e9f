"""Many ties: prices cannot tell tied datapoints apart, a little noise can."""

import jax
from jax import Array

from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._prices import Search, cool, start_at
from gumbel_moe.matching._repair import Plan, rounded
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import best_expert

_NOISE = 0.02  # relative to the spread of the scores
_FIRST = 0.25  # temperatures for the noisy scores, relative to the noise
_LAST = 1e-4


def break_ties(
    scores: Array, capacity: Array, spare: Array | None, found: Search, *, spread: Array, enough: Array, slack: Array
) -> tuple[Plan, Array]:
    """A plan at nearly balanced loads for scores with many ties, and whether it may be used.

    The best assignment for noisy scores decides between the experts that are within `slack` of the best one at the
    prices found. Whether the outcome is optimal for its loads is tested on the scores themselves (no negative cycle in
    the residual graph).
    """
    noise = _NOISE * spread
    noisy = scores + noise * _noise(scores)
    warmest = _FIRST * noise
    apart = cool(
        noisy, capacity, start_at(found.prices, warmest), full=spare is None, enough=enough, coldest=_LAST * warmest
    )
    plan = rounded(scores, capacity, spare, found.prices, best_expert(noisy - apart.prices), slack)
    costs = residual_costs(scores, plan.assignment, plan.holders > 0)
    prices, settled = lowered(costs, plan.prices)
    return plan._replace(prices=prices, steps=apart.passes), settled


def _noise(scores: Array) -> Array:
    """Numbers between 0 and 1 without a pattern that could tie again; far cheaper than `n k` random draws."""
    n, k = scores.shape
    rows = jax.random.uniform(jax.random.key(0), (n, 1), scores.dtype)
    columns = jax.random.uniform(jax.random.key(1), (k,), scores.dtype)
    return 1000 * rows * columns % 1
