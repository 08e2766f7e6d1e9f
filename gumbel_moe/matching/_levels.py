"""The search, on scores brought near: once for nearly all problems, again where far scores turn out to be needed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._repair import Plan
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import anywhere, from_zero, own_scores, regret
from gumbel_moe.matching._scale import Scale, brought_near, first_scale, is_beyond, next_scale, removed
from gumbel_moe.matching._search import search

_MAX_ROUNDS = 32  # each tells more of the far scores apart; at the ends of the range rounding can stop that


class _State(NamedTuple):
    scale: Scale
    plan: Plan
    gap: Array
    unsettled: Array
    rounds: Array


def search_levels(
    scores: Array,
    top: Array,
    solvable: Array,
    capacity: Array,
    spare: Array | None,
    given: Array | None,
    each: int | None = None,
) -> tuple[Plan, Array]:
    """The best plan, and a bound on what it misses of the optimum: 0 but for rounding.

    Scores brought near are nowhere below what they were. So a plan that is the best one for them and needs none that
    was changed is the best one; the bound, from its prices, holds for the scores as they were. If it needs some, the
    search starts again on a larger scale. Where that has no end within some rounds, the bound is infinite.

    `top` `(n,)` is the best score of every datapoint, `each` the number of its experts, None for one. What is not
    `solvable` becomes a trivial problem, so that it cannot hold up the loops.
    """
    problem = (scores, top, solvable, capacity, spare, given)
    scores, top, solvable, capacity, spare, given = vary_like(problem, problem)

    def attempt(state: _State) -> _State:
        scale = state.scale
        near = jnp.where(solvable, brought_near(scores, top, scale), 0)
        far = jnp.where(scale.reach > 0, jnp.inf, scale.limit)
        plan, gap = search(near, far, capacity, spare, given, each)
        cut_off = plan.possible & jnp.any(own_scores(near, plan.assignment) <= -scale.end)

        def far_ones(_: None) -> tuple[Array, Array, Scale, Array]:
            following, more = next_scale(scores, top, scale)
            return *_with_levels(scores, top, scale, plan, gap), following, more & cut_off

        def none(_: None) -> tuple[Array, Array, Scale, Array]:
            return plan.prices, gap, scale, vary_like(scores, jnp.array(False))

        prices, gap, following, unsettled = jax.lax.cond(cut_off | (scale.reach > 0), far_ones, none, None)
        plan = plan._replace(prices=prices / scale.unit, steps=state.plan.steps + plan.steps)
        return _State(following, plan, gap / scale.unit, unsettled, state.rounds + 1)

    n, k = scores.shape
    nobody = jnp.zeros(k, jnp.int32)
    nothing = jnp.zeros((), scores.dtype)
    prices, steps = jnp.zeros(k, scores.dtype), jnp.zeros((), jnp.int32)
    plan = Plan(anywhere(n, each), nobody, prices, nobody, jnp.array(False), steps)
    start = _State(first_scale(scores, top), plan, nothing, jnp.array(True), jnp.zeros((), jnp.int32))
    end = jax.lax.while_loop(
        lambda state: state.unsettled & (state.rounds < _MAX_ROUNDS), attempt, vary_like(scores, start)
    )
    # Without an end the plan stands on scores that are not the given ones: there is no bound.
    return end.plan, jnp.where(end.unsettled, jnp.inf, end.gap)


def _with_levels(scores: Array, top: Array, scale: Scale, plan: Plan, gap: Array) -> tuple[Array, Array]:
    """Prices and gap of a plan for scores of which those beyond the limit were raised by a constant, without that.

    It needs the fewest of them that there is, if there are prices that prove it for the problem of counting them.
    These, times the constant, and its own prices together prove it for the scores.
    """
    levels = jnp.where(scores > -jnp.inf, -is_beyond(scores, top, scale).astype(scores.dtype), -jnp.inf)
    costs = residual_costs(levels, plan.assignment, plan.holders > 0)
    prices, _ = lowered(costs, jnp.zeros_like(plan.prices))
    prices = from_zero(prices, plan.holders)
    missed = jnp.sum(regret(levels - prices, plan.assignment))
    return plan.prices + removed(scale) * prices, gap + removed(scale) * missed
