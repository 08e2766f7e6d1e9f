"""Places drawn without replacement: draws, log-probability and entropy of who gets a place of which expert."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_expert, count
from gumbel_moe._varying import vary_like

MOST_PLACES = 2**30  # so that their numbers, and those of the datapoints added to them, are int32


@partial(jax.jit, static_argnames="shape")
def draw_experts(key: Array, capacity: Array, present: Array | None, shape: tuple[int, ...]) -> Array:
    """Experts of `shape` `(..., n)`, of capacities `(..., k)` that broadcast against it; -1 where places are missing.

    Of the places that get a datapoint and those that stay free, the fewer are drawn. Then the experts that so many
    places have been taken from are dealt out to the datapoints in random order.
    """
    *batch, n = shape
    k = capacity.shape[-1]
    capacity = jnp.broadcast_to(capacity, (*batch, k))
    wanted = jnp.full(batch, n, jnp.int32) if present is None else jnp.sum(present, axis=-1, dtype=jnp.int32)
    ends = jnp.cumsum(capacity, axis=-1)
    places = ends[..., -1]
    # The sum in floats is there to see that of the integers overflow.
    possible = (jnp.sum(capacity.astype(jnp.float32), axis=-1) <= MOST_PLACES) & (wanted <= places)
    number = jnp.where(possible, jnp.minimum(wanted, places - wanted), 0)

    places_key, order_key = jax.random.split(key)
    marked = _distinct(places_key, places, number, n)
    so_far = jnp.sum(marked[..., None, :] < ends[..., None], axis=-1, dtype=jnp.int32)
    taken = jnp.where((number == wanted)[..., None], so_far, ends - so_far)  # by each expert and those before it
    expert = jnp.sum(taken[..., None, :] <= jnp.arange(n, dtype=jnp.int32)[:, None], axis=-1, dtype=jnp.int32)

    words = jax.random.bits(order_key, (2, *shape))  # two, as one has ties among some 10,000 datapoints
    *_, shuffled = jax.lax.sort((expert == k, words[0], words[1], expert), num_keys=3)
    if present is not None:
        position = jnp.maximum(jnp.cumsum(present, axis=-1, dtype=jnp.int32) - 1, 0)
        shuffled = jnp.take_along_axis(shuffled, jnp.broadcast_to(position, shape), axis=-1)
        shuffled = jnp.where(present, shuffled, k)
    return jnp.where(possible[..., None], shuffled, -1)


def _distinct(key: Array, places: Array, number: Array, n: int) -> Array:
    """`number` `(...)` of `places` `(...)`, at most half of them, all sets alike: ascending `(..., n)`, then beyond.

    Whoever draws a place that another has draws anew. No place is treated in another way than others, so that all sets
    of places have the same probability; and every draw succeeds with probability 1/2 at least.
    """
    index = jnp.arange(n, dtype=jnp.int32)
    undecided = index < number[..., None]
    nobody = jnp.broadcast_to(places[..., None] + index, undecided.shape)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, place, undecided = state
        key, draw_key = jax.random.split(key)
        drawn = jax.random.randint(draw_key, place.shape, 0, jnp.maximum(places, 1)[..., None], jnp.int32)
        # Who has a place already comes first, and keeps it.
        place, _ = jax.lax.sort((jnp.where(undecided, drawn, place), undecided), num_keys=2)
        same = place[..., 1:] == place[..., :-1]
        return key, place, jnp.concatenate([jnp.zeros_like(undecided[..., :1]), same], axis=-1)

    if n == 0:
        return nobody
    start = vary_like((key, places, number), (key, nobody, undecided))
    return jax.lax.while_loop(lambda state: jnp.any(state[2]), step, start)[1]


@jax.jit
def uniform_log_prob(capacity: Array, value: Array) -> Array:
    r"""The log-probability of values `(..., n)` within capacities `(..., k)`, as a sum of terms of one sign.

    The datapoints take their places one by one, those of the first expert first. The next one takes a place of expert
    $j$, which has $a$ left, while the others have $b$, with probability $a / (a + b)$; its log is $-\log(1 + b / a)$.
    Differences of log-factorials, some 1e6 for 65,536 places, would leave nothing of a small sum in float32.
    """
    n, k = value.shape[-1], capacity.shape[-1]
    taken = count(value, k)
    capacity = jnp.broadcast_to(capacity, jnp.broadcast_shapes(capacity.shape, taken.shape))
    ends = jnp.cumsum(jnp.broadcast_to(taken, capacity.shape), axis=-1)
    others = _others(capacity - taken, capacity)
    index = jnp.arange(n, dtype=jnp.int32)
    expert = jnp.sum(ends[..., None, :] <= index[:, None], axis=-1, dtype=jnp.int32)  # `k` beyond all that take part
    left = at_expert((capacity + ends - taken)[..., None, :], expert) - index
    term = jnp.log1p(at_expert(others[..., None, :], expert) / jnp.maximum(left, 1).astype(others.dtype))
    return jnp.sum(jnp.where(expert < k, -term, 0), axis=-1)


def _others(before: Array, after: Array) -> Array:
    """For every expert the sum of `before` over those before it and of `after` over those after it, in floats."""
    before, after = (x.astype(jnp.result_type(float)) for x in (before, after))
    nothing = jnp.zeros_like(before[..., :1])
    earlier = jnp.concatenate([nothing, jnp.cumsum(before, axis=-1)[..., :-1]], axis=-1)
    later = jnp.concatenate([jnp.cumsum(after[..., ::-1], axis=-1)[..., -2::-1], nothing], axis=-1)
    return earlier + later


@partial(jax.jit, static_argnames="n")
def uniform_entropy(capacity: Array, wanted: Array, n: int) -> Array:
    r"""$-E[\log P]$ of `wanted` `(...)` datapoints, at most `n`, under capacities `(..., k)`; NaN without room.

    $E \log P = \sum_j E[n_j] \log(c_j / S) + \sum_j E\, h(c_j, n_j) - h(S, n)$ with $h(c, m) = \sum_{r < m}
    \log(1 - r / c)$, and $E\, h(c_j, n_j) = \sum_r P(n_j > r) \log(1 - r / c_j)$.
    """
    others = _others(capacity, capacity)
    places, dtype = capacity.astype(others.dtype), others.dtype
    total = jnp.sum(places, axis=-1)
    share = places / total[..., None]
    independent = wanted.astype(dtype) * jnp.sum(share * jnp.log1p(others / places), axis=-1)
    rank = jnp.arange(n, dtype=jnp.int32)
    in_all = jnp.sum(jnp.where(rank < wanted[..., None], _log_left(rank, total[..., None]), 0), axis=-1)
    more = _tails(capacity, others.astype(jnp.int32), wanted[..., None], n)
    of_experts = jnp.sum(more * _log_left(rank, places[..., None]), axis=(-2, -1))
    possible = (total <= MOST_PLACES) & (total >= wanted.astype(dtype))
    return jnp.where(possible, independent + in_all - of_experts, jnp.nan)


def _log_left(rank: Array, places: Array) -> Array:
    """`log(1 - rank / places)`, 0 where so many places have all been taken."""
    part = rank.astype(places.dtype) / places
    return jnp.where(part < 1, jnp.log1p(-jnp.where(part < 1, part, 0)), 0)


def _tails(capacity: Array, others: Array, wanted: Array, n: int) -> Array:
    """`P(n_j > r)` for `r` below `n`, `(..., k, n)`: hypergeometric, by ratios of neighbours from about the mode on."""
    dtype = jnp.result_type(float)
    capacity, others, wanted = (
        jnp.broadcast_to(x, jnp.broadcast_shapes(capacity.shape, wanted.shape))[..., None]
        for x in (capacity, others, wanted)
    )
    least, most = jnp.maximum(wanted - others, 0), jnp.minimum(wanted, capacity)
    mean = wanted.astype(dtype) * (capacity.astype(dtype) / (capacity.astype(dtype) + others.astype(dtype)))
    mode = jnp.clip(mean.astype(jnp.int32), least, most)
    m = jnp.arange(n, dtype=jnp.int32)
    inside = (m >= least) & (m < most)
    up = (capacity - m).astype(dtype) / (m + 1).astype(dtype)
    down = (wanted - m).astype(dtype) / (others - wanted + m + 1).astype(dtype)
    ratio = jnp.log(jnp.where(inside, up * down, 1))
    nothing = jnp.zeros_like(ratio[..., :1])
    above = jnp.concatenate([nothing, jnp.cumsum(jnp.where(m >= mode, ratio, 0), axis=-1)], axis=-1)
    below = jnp.concatenate([_from_the_end(jnp.where(m < mode, ratio, 0)), nothing], axis=-1)
    number = jnp.arange(n + 1, dtype=jnp.int32)
    weight = jnp.where((number >= least) & (number <= most), jnp.exp(above - below), 0)
    more = _from_the_end(weight)
    return more[..., 1:] / more[..., :1]


def _from_the_end(x: Array) -> Array:
    return jnp.cumsum(x[..., ::-1], axis=-1)[..., ::-1]
