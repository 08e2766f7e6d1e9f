"""The whole search of one problem: cool the prices, match the core, check everybody, mend what is left."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.matching._core import match_core
from gumbel_moe.matching._paths import lowered
from gumbel_moe.matching._prices import Search, cool, start_at
from gumbel_moe.matching._repair import Plan, repaired, rounded
from gumbel_moe.matching._residual import residual_costs
from gumbel_moe.matching._rows import count, from_zero, own_scores, regret
from gumbel_moe.matching._start import COLD_START, centre_and_spread, first_temperature, plausible
from gumbel_moe.matching._ties import break_ties

_CORE_ROWS = 8  # rows of the core per expert
_CORE_WORTHWHILE = 4  # how many times smaller than the problem it has to be
_FEW = 1 / 4  # undecided datapoints per expert at which cooling ends and paths take over
_MANY = 4  # undecided datapoints per expert, at the lowest temperature, that are taken for ties
_HOPELESS = 1e-3  # temperature, relative to the spread of the scores, at which many undecided are taken for ties
_ATTEMPTS = 2  # at breaking ties: the first after a short search, the second after all that the precision allows
_ALIKE = 16.0  # temperatures that scores taken for tied may be apart; whether they are is tested later
_ROUNDING = 4  # scores this many units in the last place apart are the same


def search(scores: Array, far: Array, capacity: Array, spare: Array | None, prices: Array | None) -> tuple[Plan, Array]:
    """The best plan, and the duality gap left in it by rounding, `sum_i max_j (s[i, j] - u_j) - (s[i, z_i] - u_{z_i})`.

    Its prices are at least 0, and 0 where a place is free: there is no other term in the gap, and none is negative.
    The best score of every datapoint is 0; those at least `far` below should not be needed. `spare` is what
    `sum(capacity)` is above `n`, or None when that is 0.
    """
    n, k = scores.shape
    first, spread = centre_and_spread(scores, far)
    tau = COLD_START * spread
    if prices is not None:
        first = jnp.where(jnp.all(jnp.isfinite(prices)), plausible(scores, prices), first)
        tau = first_temperature(scores, capacity, first, spread)
    coldest = float(jnp.finfo(scores.dtype).eps) ** 0.85 * spread
    few = jnp.asarray(_FEW * k, scores.dtype)
    size = _CORE_ROWS * k
    found = start_at(first, tau)
    if n < _CORE_WORTHWHILE * size:
        return _with_everybody(scores, capacity, spare, found, spread, few, coldest)

    full, hopeless = spare is None, _HOPELESS * spread
    found = cool(scores, capacity, found, full=full, enough=size / 2, coldest=coldest, hopeless=hopeless)
    data = (scores, capacity, found)
    nothing = (_nobody(scores, found), jnp.zeros((), scores.dtype), jnp.array(False))
    plan, gap, settled = jax.lax.cond(
        found.undecided <= size,
        lambda _: vary_like(data, _with_core(scores, capacity, spare, found, size=size, enough=few, coldest=coldest)),
        lambda _: vary_like(data, nothing),
        None,
    )

    def go_on(_: None) -> tuple[Plan, Array]:
        # In a vmapped batch this is computed for all problems: no loop may start for those that are settled.
        before = found._replace(passes=plan.steps)
        return _with_everybody(scores, capacity, spare, before, spread, jnp.where(settled, jnp.inf, few), coldest)

    return jax.lax.cond(settled, lambda _: vary_like(data, (plan, gap)), lambda _: vary_like(data, go_on(_)), None)


def _with_core(
    scores: Array, capacity: Array, spare: Array | None, found: Search, *, size: int, enough: Array, coldest: Array
) -> tuple[Plan, Array, Array]:
    """The core's plan, the gap left in it as in `search`, and whether everybody agrees, so that it is the best one."""
    near, assignment, fits = match_core(scores, capacity, spare, found, size=size, enough=enough, coldest=coldest)
    holders = capacity - count(assignment, scores.shape[1])
    prices = from_zero(near.prices, holders)
    shifted = scores - prices
    best = jnp.max(shifted, axis=1)
    gain = best - own_scores(shifted, assignment)
    slack = _ROUNDING * float(jnp.finfo(scores.dtype).eps) * (jnp.max(jnp.abs(best)) + jnp.max(prices))
    plan = Plan(assignment, holders, prices, jnp.zeros_like(holders), fits, near.passes)
    return plan, jnp.sum(gain), fits & jnp.all(gain <= slack)


def _nobody(scores: Array, found: Search) -> Plan:
    """A plan that is none yet."""
    n, k = scores.shape
    nobody = jnp.zeros(k, jnp.int32)
    return Plan(jnp.zeros(n, jnp.int32), nobody, found.prices, nobody, jnp.array(True), found.passes)


def _with_everybody(
    scores: Array,
    capacity: Array,
    spare: Array | None,
    found: Search,
    spread: Array,
    enough: Array,
    coldest: Array,
) -> tuple[Plan, Array]:
    """The same as `search`, from where the prices stand, on all datapoints."""
    k = scores.shape[1]
    data = (scores, capacity, found, enough)

    def attempt(state: tuple[Search, Plan, Array, Array]) -> tuple[Search, Plan, Array, Array]:
        stands, _, _, attempts = state
        hopeless = jnp.where(attempts == 0, _HOPELESS * spread, coldest)
        stands = cool(scores, capacity, stands, full=spare is None, enough=enough, coldest=coldest, hopeless=hopeless)
        ties = stands.undecided > jnp.maximum(enough, _MANY * k)

        def untie(_: None) -> tuple[Plan, Array]:
            stop = jnp.where(ties, enough, jnp.inf)
            tied = break_ties(scores, capacity, spare, stands, spread=spread, enough=stop, slack=_ALIKE * stands.tau)
            return vary_like(data, tied)

        def decide(_: None) -> tuple[Plan, Array]:
            return vary_like(data, (rounded(scores, capacity, spare, stands.prices), jnp.array(True)))

        plan, settled = jax.lax.cond(ties & (attempts < _ATTEMPTS), untie, decide, None)
        stands = stands._replace(passes=stands.passes + plan.steps)
        return stands, plan, settled, attempts + 1

    first = (found, _nobody(scores, found), jnp.array(False), jnp.zeros((), jnp.int32))
    first = vary_like(data, first)
    closer, plan, _, _ = jax.lax.while_loop(lambda state: ~state[2], attempt, first)
    done = repaired(scores, plan._replace(steps=closer.passes, possible=jnp.isfinite(enough)))
    # Rounding piles up on the way; optimal prices satisfy `u_p <= u_j + costs[p, j]` on every edge.
    prices, _ = lowered(residual_costs(scores, done.assignment, done.holders > 0), done.prices)
    prices = from_zero(prices, done.holders)
    return done._replace(prices=prices), jnp.sum(regret(scores - prices, done.assignment))
