"""Many draws of a router, batch by batch: sums over datapoints and experts, and a few numbers of every draw."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe.routing import Routing, load

_BATCH_BYTES = 2**24
_MOST = 512
WEIGHT_EDGES = 10 ** ((np.arange(142) - 0.5) / 20 - 3)
"""Of the histogram of weights: 20 bins to a factor of 10, 1 in the middle of its bin. The first and last bin take
what is beyond, 0 has its own."""


class Seen(NamedTuple):
    """One batch, or all draws."""

    first: Any
    """`(n, k)` sum of weights where the datapoint went to the expert."""
    second: Any
    """`(n, k)` sum of their squares."""
    histogram: Any
    """`(bins + 1,)`: how many weights were 0, and in each bin."""
    demand: Any
    """`(draws, k)` datapoints sent to each expert."""
    load: Any
    """`(draws, k)` datapoints that it handles."""
    skipped: Any
    """`(draws,)` fraction of the datapoints; of several experts, of the pairs of a datapoint and an expert."""
    effective: Any
    r"""`(draws,)` $(\\sum_i w_i)^2 / (n \\sum_i w_i^2)$; of several experts with the sums of a datapoint's weights."""
    largest: Any
    """`(draws,)` the largest weight."""
    share: Any
    """`(draws,)` the largest part of the sum of all that one datapoint has."""


def routing_draws(
    router: Callable[[Array, Array], Routing], logits: Array, key: Array, draws: int, advance: Callable[[int], object]
) -> Seen:
    """All draws; what is kept of one is a few numbers per expert."""
    n, k = logits.shape
    size = max(1, min(_MOST, draws, _BATCH_BYTES // (4 * max(n * k, 1))))
    size = -(-draws // -(-draws // size))
    parts = []
    sums = [np.zeros((n, k)), np.zeros((n, k)), np.zeros(len(WEIGHT_EDGES))]
    # Not under `jit`: the routers compile themselves, for all capacities and parameters that are not in the shapes.
    draw = jax.vmap(router, (0, None))
    for start in range(0, draws, size):
        numbers = jnp.arange(start, min(start + size, draws))
        seen = _look(draw(jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers), logits))
        for total, part in zip(sums, seen[:3], strict=True):
            total += np.asarray(part, np.float64)
        parts.append(jax.tree.map(np.asarray, seen[3:]))
        advance(len(numbers))
    return Seen(*sums, *(np.concatenate(column) for column in zip(*parts, strict=True)))


@jax.jit
def _look(routing: Routing) -> Seen:
    weight, k = routing.weight, routing.log_probs.shape[-1]
    weighted = jnp.where(routing.expert[..., None] == jnp.arange(k), weight[..., None], 0)
    present = routing.mask
    n = jnp.maximum(jnp.sum(present, axis=1), 1)
    # Who is sent somewhere, of one expert or of each of several; and what a datapoint's experts count together.
    sent, asked, of_all = present, n, weight
    if routing.experts_per_datapoint is not None:
        weighted, of_all = weighted.sum(axis=2), weight.sum(axis=2)
        sent = present[..., None] & (routing.expert < k)
        asked = jnp.maximum(jnp.sum(sent, axis=(1, 2)), 1)
    everyone = routing._replace(kept=sent)
    skipped = jnp.sum((sent & ~routing.kept).reshape(len(n), -1), axis=1)
    total, squares = of_all.sum(axis=1), (of_all**2).sum(axis=1)
    edges = jnp.asarray(WEIGHT_EDGES, weight.dtype)
    place = jnp.where(weight > 0, jnp.clip(jnp.searchsorted(edges, weight), 1, len(edges) - 1), 0)
    some = total != 0  # also where it is NaN
    return Seen(
        first=weighted.sum(axis=0),
        second=(weighted**2).sum(axis=0),
        histogram=jnp.zeros(len(edges), jnp.int32).at[place.ravel()].add(sent.ravel()),
        demand=jax.vmap(load)(everyone),
        load=jax.vmap(load)(routing),
        skipped=skipped / asked,
        effective=jnp.where(some, total**2 / (n * jnp.where(some, squares, 1)), 0),
        largest=weight.reshape(len(n), -1).max(axis=1),
        share=jnp.where(some, of_all.max(axis=1) / jnp.where(some, total, 1), 0),
    )
