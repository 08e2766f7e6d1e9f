"""The whole search of one problem: cool the prices, match the core, check everybody, mend what is left."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._core import match_core
from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._prices import Search, cool, start_at
from gumbel_moe.matching._repair import Plan, repaired, rounded
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import anywhere, best_experts, count, from_zero, regret
from gumbel_moe.matching._start import COLD_START, centre_and_spread, first_temperature, plausible
from gumbel_moe.matching._ties import temperatures, tested, without_ties

_CORE_ROWS = 8  # rows of the core per expert
_CORE_WORTHWHILE = 4  # how many times smaller than the problem it has to be
_FEW = 1 / 4  # undecided datapoints per expert at which cooling ends and paths take over
_MANY = 4  # undecided datapoints per expert, at the lowest temperature, that are taken for ties
_ALIKE = 16.0  # temperatures that scores taken for tied may be apart; whether they are is tested later
_ROUNDING = 4  # scores this many units in the last place apart are the same


class _State(NamedTuple):
    """Between two rounds of cooling."""

    found: Search  # where the search for prices stands, on the scores as they are
    plan: Plan
    gap: Array
    settled: Array
    proved: Array  # by the core: nothing is left to mend
    core: Array  # is tried after the next round
    untie: Array  # in the next round, by a little noise
    tried: Array  # it was


def search(
    scores: Array, far: Array, capacity: Array, spare: Array | None, prices: Array | None, each: int | None = None
) -> tuple[Plan, Array]:
    """The best plan, and the duality gap left in it by rounding, `sum_i max_j (s[i, j] - u_j) - (s[i, z_i] - u_{z_i})`.

    Its prices are at least 0, and 0 where a place is free: there is no other term in the gap, and none is negative.
    The best score of every datapoint is 0; those at least `far` below should not be needed. `spare` is what
    `sum(capacity)` is above `n`, or None when that is 0. Where there are several experts for `each` datapoint, the sums
    of the largest take the place of the maximum in the gap, and `n each` that of `n`.
    """
    n, k = scores.shape
    first, spread = centre_and_spread(scores, far)
    tau = COLD_START * spread
    if prices is not None:
        first = jnp.where(jnp.all(jnp.isfinite(prices)), plausible(scores, prices), first)
        tau = first_temperature(scores, capacity, first, spread, each)
    found = start_at(first, tau)
    coldest = float(jnp.finfo(scores.dtype).eps) ** 0.85 * spread
    few = jnp.asarray(_FEW * k, scores.dtype)
    size = _CORE_ROWS * k
    worthwhile = n >= _CORE_WORTHWHILE * size

    # Each loop and branch is in the program once, with what differs between the rounds as data: it compiles faster.
    def advance(state: _State) -> _State:
        enough = jnp.where(state.core, size / 2, few).astype(scores.dtype)
        # In a vmapped batch this is computed for all problems: no loop may start for those that are settled.
        enough = jnp.where(state.settled, jnp.inf, enough)
        used, near = _cooled(scores, capacity, spare, state, spread=spread, enough=enough, coldest=coldest, each=each)
        data = (used, capacity, near)

        def with_core(_: None) -> _State:
            plan, gap, settled = _with_core(
                scores, capacity, spare, near, size=size, enough=few, coldest=coldest, each=each
            )
            here = near._replace(passes=plan.steps)
            return vary_like(data, state._replace(found=here, plan=plan, gap=gap, settled=settled, proved=settled))

        def decide(_: None) -> _State:
            many = near.undecided > jnp.maximum(few, _MANY * k)
            return vary_like(data, _decided(scores, capacity, spare, state, used, near, many=many, each=each))

        if not worthwhile:
            return decide(None)
        after = jax.lax.cond(state.core & (near.undecided <= size), with_core, decide, None)
        return after._replace(core=vary_like(data, jnp.array(False)))

    no, nothing = jnp.array(False), jnp.zeros((), scores.dtype)
    plan = _nobody(scores, found, each)
    start = _State(found, plan, nothing, no, no, jnp.array(worthwhile), no, no)
    data = (scores, capacity, found)
    end = jax.lax.while_loop(lambda state: ~state.settled, advance, vary_like(data, start))

    def finish(_: None) -> tuple[Plan, Array]:
        return vary_like(data, _finished(scores, end.plan._replace(steps=end.found.passes), full=spare is None))

    if not worthwhile:
        return finish(None)
    return jax.lax.cond(end.proved, lambda _: vary_like(data, (end.plan, end.gap)), finish, None)


def _cooled(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    state: _State,
    *,
    spread: Array,
    enough: Array,
    coldest: Array,
    each: int | None,
) -> tuple[Array, Search]:
    """The scores of this round, with noise in them where it breaks ties, and the prices found for them."""
    untie, found = state.untie, state.found
    warmest, last = temperatures(spread)
    # Made in the branch: outside of it, every problem would pay a pass over the scores.
    used = jax.lax.cond(
        untie,
        lambda: vary_like((scores, spread), without_ties(scores, spread)),
        lambda: vary_like((scores, spread), scores),
    )
    begin = jax.tree.map(
        lambda a, b: jnp.where(untie, a, b), start_at(found.prices, warmest)._replace(passes=found.passes), found
    )
    coldest = jnp.where(untie, last, coldest)
    return used, cool(used, capacity, begin, full=spare is None, enough=enough, coldest=coldest, each=each)


def _decided(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    state: _State,
    used: Array,
    near: Search,
    *,
    many: Array,
    each: int | None,
) -> _State:
    """What follows from a round: another one without ties, once, where there are `many`; else a plan.

    The best assignment for scores with noise decides between the experts that are about as good at the prices found
    without.
    """
    untie = state.untie
    again = many & ~untie & ~state.tried
    here = jax.tree.map(lambda a, b: jnp.where(untie, a, b), state.found, near)._replace(passes=near.passes)
    data = (used, capacity, near)

    def plan(_: None) -> tuple[Plan, Array]:
        slack = jnp.where(untie, _ALIKE * here.tau, 0)
        preferred = best_experts(used - near.prices, each)
        rough = rounded(scores, capacity, spare, here.prices, preferred, slack, each)
        untested = (rough.prices, jnp.array(True))
        prices, best = jax.lax.cond(
            untie, lambda: vary_like(data, tested(scores, rough)), lambda: vary_like(data, untested)
        )
        return vary_like(data, (rough._replace(prices=prices), best))

    none = (state.plan, jnp.array(False))
    rough, settled = jax.lax.cond(again, lambda _: vary_like(data, none), plan, None)
    return state._replace(found=here, plan=rough, settled=settled, untie=again, tried=state.tried | untie)


def _with_core(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    found: Search,
    *,
    size: int,
    enough: Array,
    coldest: Array,
    each: int | None,
) -> tuple[Plan, Array, Array]:
    """The core's plan, the gap left in it as in `search`, and whether everybody agrees, so that it is the best one."""
    near, assignment, fits = match_core(
        scores, capacity, spare, found, size=size, enough=enough, coldest=coldest, each=each
    )
    holders = capacity - count(assignment, scores.shape[1])
    prices = from_zero(near.prices, holders)
    shifted = scores - prices
    best = jnp.max(shifted, axis=1)
    gain = regret(shifted, assignment)
    slack = _ROUNDING * float(jnp.finfo(scores.dtype).eps) * (jnp.max(jnp.abs(best)) + jnp.max(prices))
    plan = Plan(assignment, holders, prices, jnp.zeros_like(holders), fits, near.passes)
    return plan, jnp.sum(gain), fits & jnp.all(gain <= slack)


def _nobody(scores: Array, found: Search, each: int | None) -> Plan:
    """A plan that is none yet."""
    n, k = scores.shape
    nobody = jnp.zeros(k, jnp.int32)
    return Plan(anywhere(n, each), nobody, found.prices, nobody, jnp.array(True), found.passes)


def _finished(scores: Array, plan: Plan, *, full: bool) -> tuple[Plan, Array]:
    """The plan without excess, at optimal prices, and the gap left in it."""
    done = repaired(scores, plan, full=full)
    # Rounding piles up on the way; optimal prices satisfy `u_p <= u_j + costs[p, j]` on every edge.
    prices, _ = lowered(residual_costs(scores, done.assignment, done.holders > 0), done.prices)
    prices = from_zero(prices, done.holders)
    return done._replace(prices=prices), jnp.sum(regret(scores - prices, done.assignment))
