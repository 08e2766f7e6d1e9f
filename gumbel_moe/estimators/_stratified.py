"""Several draws of one Categorical per datapoint, shared out so that probable experts are covered for sure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class StratifiedDraw(NamedTuple):
    """`(n,)` arrays, one of several draws; the expected mean over the draws of `weight` at expert `j` is `p[i, j]`."""

    expert: Array
    weight: Array
    drawn: Array  # bool: drawn at random, and not there to cover a probable expert


def stratified_draw(key: Array, logits: Array, draw: Array, num_draws: int) -> StratifiedDraw:
    r"""Draw number `draw` of `num_draws`, for logits `(n, k)`.

    Of $P < k$ draws, the $c$ most probable experts get one each, with weight $P p_{ij}$; the other $P - c$ are
    independent draws among the rest, whose mass is $r$, with weight $P r / (P - c)$. The variance is at most in
    proportion to $r^2 / (P - c)$, which $c$ minimises. Of $P \ge k$ draws, all experts get a number $m_j \ge 1$, about
    in proportion to $p_{ij}$, each with weight $P p_{ij} / m_j$, and nothing is left to chance.

    The roles rotate from one datapoint to the next, so that no draw carries most of the weight.
    """
    n, k = logits.shape
    order = jnp.argsort(-logits, axis=-1).astype(jnp.int32)
    prob = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    ranks = jnp.arange(k, dtype=jnp.int32)
    role = ((draw + jnp.arange(n, dtype=jnp.int32)) % num_draws)[:, None]
    if num_draws >= k:
        number = 1 + jnp.floor((num_draws - k) * prob).astype(jnp.int32)
        number = number.at[:, 0].add(num_draws - jnp.sum(number, axis=-1, dtype=jnp.int32))
        rest, left, drawn = prob[:, :1], 1, jnp.zeros((n, 1), bool)
    else:
        rest = jnp.cumsum(prob[:, ::-1], axis=-1)[:, ::-1][:, :num_draws]  # from the small ones up, lest they be lost
        sure = jnp.argmin(rest**2 / (num_draws - ranks[:num_draws]), axis=-1).astype(jnp.int32)[:, None]
        number = (ranks < sure).astype(jnp.int32)
        rest, left, drawn = jnp.take_along_axis(rest, sure, axis=-1), num_draws - sure, role >= sure

    rank = jax.random.categorical(key, jnp.where(number > 0, -jnp.inf, jnp.log(prob)), axis=-1) if num_draws < k else 0
    covering = jnp.sum(jnp.cumsum(number, axis=-1) <= role, axis=-1)
    rank = jnp.where(drawn[:, 0], rank, jnp.minimum(covering, k - 1)).astype(jnp.int32)[:, None]
    prob, number, expert = (jnp.take_along_axis(x, rank, axis=-1) for x in (prob, number, order))
    weight = num_draws * jnp.where(drawn, rest / left, prob / jnp.maximum(number, 1))
    return StratifiedDraw(expert[:, 0], weight[:, 0], drawn[:, 0])


def stratified_baseline(weight: Array, weighted: Array, drawn: Array) -> Array:
    """A baseline from `weight`, `weighted` (weight times term) and `drawn`, all `(draws, n)`.

    For an independent draw: the covered terms and the mean of the *other* independent draws; for a single one, the
    weighted mean of the covered terms. For the covered terms, which are not drawn: the mean of those baselines, for a
    constant cancels only if it is taken off all experts alike. With nothing to go by, 0.
    """
    num_draws = weighted.shape[0]
    number = jnp.sum(drawn, axis=0, dtype=weighted.dtype)
    covered, mass = (jnp.sum(jnp.where(drawn, 0, x), axis=0) for x in (weighted, weight))
    others = jnp.sum(jnp.where(drawn, weighted, 0), axis=0) - weighted
    several = (covered + others * number / jnp.maximum(number - 1, 1)) / num_draws
    baseline = jnp.where(number > 1, several, covered / jnp.where(mass > 0, mass, 1))
    return jnp.where(drawn, baseline, jnp.sum(jnp.where(drawn, baseline, 0), axis=0) / jnp.maximum(number, 1))
