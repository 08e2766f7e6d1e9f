"""Two experts: the matching is a sort of the differences of their scores."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._repair import Plan
from gumbel_moe.matching._rows import difference

_UNIT = 1 / 4  # of scores near the largest float: so their differences do not overflow


def two_experts(scores: Array, capacity: Array) -> tuple[Plan, Array]:
    """The best plan for scores `(n, 2)` and the regret left in it, which is 0 but for rounding.

    Expert 1 gets the datapoints that prefer it most: as many as prefer it at all, but for what the capacities require.
    The difference of the prices is the number nearest to 0 between the last of them and the first of the others.
    """
    n = scores.shape[0]
    large = jnp.max(jnp.where(scores > -jnp.inf, jnp.abs(scores), 0)) > _UNIT * float(jnp.finfo(scores.dtype).max)
    unit = jnp.where(large, _UNIT, 1).astype(scores.dtype)
    # By what rounding takes, too: a mask hides the size of the other score.
    preference, rest = difference(scores[:, 1] * unit, scores[:, 0] * unit)
    index = jnp.arange(n, dtype=jnp.int32)
    ranked, _, order = jax.lax.sort((-preference, -rest, index), num_keys=2)
    ranked = -ranked
    willing = jnp.sum(preference > 0, dtype=jnp.int32)
    number = jnp.clip(willing, jnp.maximum(n - capacity[0], 0), jnp.minimum(capacity[1], n))
    chosen = index < number
    assignment = jnp.zeros(n, jnp.int32).at[order].set(chosen.astype(jnp.int32))

    edge = jnp.full(1, jnp.inf, scores.dtype)
    bounded = jnp.concatenate([edge, ranked, -edge])
    last, first_left = bounded[number], bounded[number + 1]
    price = jnp.clip(0, first_left, last).astype(scores.dtype)
    # +inf: expert 0 is forbidden; -inf: expert 1 is. Such datapoints must be on the right side of the cut.
    feasible = (last > -jnp.inf) & (first_left < jnp.inf)
    against = jnp.where(chosen, price - ranked, ranked - price)  # what a datapoint would gain by the other
    load = jnp.stack([n - number, number]).astype(jnp.int32)
    plan = Plan(
        assignment=assignment,
        holders=capacity - load,
        prices=jnp.maximum(jnp.stack([-price, price]), 0) / unit,
        excess=jnp.zeros(2, jnp.int32),
        possible=feasible,
        steps=jnp.ones((), jnp.int32),
    )
    return plan, jnp.sum(jnp.maximum(against, 0)) / unit
