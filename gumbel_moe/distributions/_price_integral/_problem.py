"""One assignment, brought into the form in which its integral over prices is computed.

A residual graph in which some experts cannot reach others (logits of `-inf`) falls into strongly connected components.
A cycle stays inside one, so that an assignment is optimal when it is optimal inside every component, whatever the noise
between them. Logits that lead out of a component are therefore left out, and each component has prices of its own:

- Without a free place, prices are defined up to a constant, which one pinned expert fixes; the others range over the
  line.
- With free places, experts that have one are pinned at 0, and the prices of the full ones are at least 0.

Pairs with a logit far below the datapoint's best one are left out like those of `-inf`, unless the assignment uses
them: their part of the integral is smaller than rounding. So a huge negative number may stand for `-inf`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._logits import centred, without_constants

BARRED = -1e9  # stands for -inf, without its NaNs
_FAR = 1e6  # nats


class PriceProblem(NamedTuple):
    """Datapoints in blocks of equal size, every block of one expert, so that sums per expert are matrix products."""

    rows: Array  # (blocks, size, k) log-probabilities within the component of the datapoint's expert
    real: Array  # (blocks, size) 1 for a datapoint, 0 for padding
    owner: Array  # (k, blocks) 1 where the block belongs to the expert
    load: Array  # (k,) datapoints of each expert
    linked: Array  # (k, k) 1 where two experts are in one component
    pinned: Array  # (k,) bool: price 0
    bounded: Array  # (k,) bool: price at least 0
    possible: Array  # () bool: inside the support, and no forbidden pair is used


def price_problem(logits: Array, assignment: Array, capacity: Array, present: Array) -> PriceProblem:
    """The problem of one assignment `(n,)`; an impossible one is replaced by a harmless one, and marked.

    Datapoints that are not `present` have expert `k`, and no part in anything.
    """
    n, k = logits.shape
    experts = jnp.arange(k, dtype=jnp.int32)
    inside = jnp.all(jnp.where(present, (assignment >= 0) & (assignment < k), assignment == k))
    expert = jnp.where(present, jnp.clip(assignment, 0, k - 1), k)
    own = expert[:, None] == experts
    load = jnp.sum(own, axis=0, dtype=jnp.int32)
    logits = without_constants(logits, capacity, present)
    possible = inside & jnp.all(load <= capacity) & ~jnp.any(own & (logits == -jnp.inf))
    usable = jnp.where(possible, (logits > -_FAR) | own, True)
    free = load < capacity
    # An impossible assignment overfills experts; no expert counts as free then, which any load satisfies.
    linked = _components(usable, expert, free)
    has_free = jnp.any(linked & free, axis=1)
    pinned = free | (~has_free & (jnp.argmax(linked, axis=1) == experts))
    within = usable & linked[jnp.minimum(expert, k - 1)]
    inner = jnp.where(within, centred(jnp.where(within, logits, -jnp.inf)), BARRED)
    # The largest is 0, and needs not be taken off again; absent datapoints may have none.
    total = jnp.sum(jnp.exp(inner), axis=1, keepdims=True)
    log_probs = inner - jnp.log(jnp.where(total > 0, total, 1))
    index, owner = _blocks(expert, load)
    real = (index < n).astype(logits.dtype)
    rows = jnp.take(log_probs, index, axis=0, mode="clip")
    return PriceProblem(
        rows=jnp.where(real[..., None] > 0, rows, 0),
        real=real,
        owner=(owner == experts[:, None]).astype(logits.dtype),
        load=load.astype(logits.dtype),
        linked=linked.astype(logits.dtype),
        pinned=pinned,
        bounded=has_free & ~free,
        possible=possible,
    )


def _components(usable: Array, expert: Array, free: Array) -> Array:
    """`(k, k)` bool: experts that reach each other by moving datapoints along; a free place moves anywhere."""
    k = usable.shape[1]
    member = (expert[:, None] == jnp.arange(k, dtype=jnp.int32)).astype(jnp.float32)
    reach = (member.T @ usable.astype(jnp.float32) > 0) | free[:, None] | jnp.eye(k, dtype=bool)

    def square(_: int, reach: Array) -> Array:
        step = reach.astype(jnp.float32)
        return step @ step > 0

    reach = jax.lax.fori_loop(0, max(1, (k - 1).bit_length()), square, reach)
    return reach & reach.T


def _blocks(expert: Array, load: Array) -> tuple[Array, Array]:
    """Datapoints `(blocks, size)` grouped by expert, `n` for padding, and the expert `(blocks,)` of each block."""
    n, k = expert.shape[0], load.shape[0]
    size = max(1, -(-n // (4 * k)))
    number = -(-n // size) + k
    order = jnp.argsort(expert, stable=True).astype(jnp.int32)
    needed = -(-load // size)
    # Sums up to each expert, and searches in them, over all pairs: `k` is small, and the program of this is, too.
    earlier = jnp.tri(k, k, -1, dtype=bool)
    first, start = jnp.sum(jnp.where(earlier[None], jnp.stack([needed, load])[:, None], 0), axis=2, dtype=jnp.int32)
    block = jnp.arange(number, dtype=jnp.int32)
    owner = jnp.sum(block[:, None] >= first + needed, axis=1, dtype=jnp.int32)
    known = jnp.minimum(owner, k - 1)
    within = (block - first[known])[:, None] * size + jnp.arange(size, dtype=jnp.int32)
    valid = (owner < k)[:, None] & (within < load[known][:, None])
    position = jnp.where(valid, start[known][:, None] + within, 0)
    index = jnp.where(valid, order[position], n)
    return index, owner
