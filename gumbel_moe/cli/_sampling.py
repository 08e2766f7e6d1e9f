"""Draws of an assignment for a matrix of logits."""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._experts import at_expert
from gumbel_moe._floor import floored, reweighted
from gumbel_moe._optional import progress_bar
from gumbel_moe.cli._capacity import Capacity
from gumbel_moe.cli._exits import BadArgumentError
from gumbel_moe.cli._precision import precision
from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from gumbel_moe.routing import IndependentRouter

_TOGETHER = 64
_BATCH_NUMBERS = 2**22  # logits of all draws made together


class Draws(NamedTuple):
    """One row per draw; the keys of the file."""

    assignment: Array
    kept: Array
    weight: Array
    log_prob: Array
    log_prob_error: Array


def draw_all(router: str, logits: np.ndarray, capacity: Capacity, floor: float, seed: int, draws: int) -> Draws:
    """Draws in the precision of the logits."""
    with precision(logits.dtype):
        return _draw_all(router, logits, capacity, floor, seed, draws)


def _draw_all(router: str, logits: np.ndarray, capacity: Capacity, floor: float, seed: int, draws: int) -> Draws:
    """Batches of one size, compiled once; the key of a draw depends on its number alone."""
    process = partial(_PROCESSES[router], jnp.asarray(logits), capacity, floor)
    key = jax.random.key(seed)
    together = max(1, min(_TOGETHER, _BATCH_NUMBERS // logits.size))
    parts = []
    with progress_bar(sys.stderr.isatty(), draws, "draws") as advance:
        for start in range(0, draws, together):
            numbers = np.arange(start, start + together, dtype=np.uint32)
            batch = process(jax.vmap(jax.random.fold_in, (None, 0))(key, numbers))
            if (batch.assignment[0] < 0).any():
                raise BadArgumentError(
                    "--logits", "forbids (-inf) so much that no assignment within --capacity is left"
                )
            count = min(together, draws - start)
            parts.append(jax.tree.map(lambda part, count=count: np.asarray(part)[:count], batch))
            advance(count)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


# Compiled for a shape, a capacity and a floor, not for the logits: those are an argument.


@partial(jax.jit, static_argnames=("capacity", "floor"))
def _independent(logits: Array, capacity: Capacity, floor: float, keys: Array) -> Draws:
    routing = jax.vmap(IndependentRouter(floor), (0, None))(keys, logits)
    log_probs = jax.nn.log_softmax(floored(logits, floor), axis=1)
    log_prob = jnp.sum(at_expert(log_probs, routing.expert), axis=1)
    return Draws(routing.expert, routing.kept, routing.weight, log_prob, jnp.zeros_like(log_prob))


@partial(jax.jit, static_argnames=("capacity", "floor"))
def _skip(logits: Array, capacity: Capacity, floor: float, keys: Array) -> Draws:
    drawn_from = floored(logits, floor)
    process = SkipAssignment(drawn_from, capacity)
    value, weight = jax.vmap(process.sample_with_weights)(keys)
    expert, log_prob = process.expert(value), process.log_prob(value)
    weight = reweighted(weight, logits, drawn_from, expert, floor)
    return Draws(expert, process.kept(value), weight, log_prob, jnp.zeros_like(log_prob))


@partial(jax.jit, static_argnames=("capacity", "floor"))
def _gumbel_matching(logits: Array, capacity: Capacity, floor: float, keys: Array) -> Draws:
    drawn_from = floored(logits, floor)
    process = GumbelMatching(drawn_from, capacity)
    value, weight = jax.vmap(process.sample_with_weights)(keys)
    log_prob, error = process.log_prob_with_error(value)
    weight = reweighted(weight, logits, drawn_from, value, floor)
    return Draws(value, jnp.ones(value.shape, bool), weight, log_prob, error)


_PROCESSES = {"independent": _independent, "skip": _skip, "gumbel_matching": _gumbel_matching}
