"""What the routers share: normalised logits, first come first kept, and the making of the record."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced
from gumbel_moe._experts import at_experts, beside, places_in_queues
from gumbel_moe.routing._record import Routing


def check_feasible(routing: Routing) -> Routing:
    """`routing`; raises when it is the mark of logits without a feasible assignment, where that can be seen."""
    if not is_traced(routing.expert) and (np.asarray(routing.expert) < 0).any():
        raise ValueError(
            "logits leave no feasible assignment: too many experts are forbidden (-inf) for the capacities"
        )
    return routing


def assemble(
    logits: Array,
    expert: Array,
    present: Array | None,
    *,
    gate: Array | None = None,
    kept: Array | None = None,
    weight: Array | None = None,
    pair_weight: Array | None = None,
    failed: Array | bool = False,
) -> Routing:
    """The record of a routing, of one expert each `(n,)` or of several `(n, m)`; by default everyone is kept, with
    weight and gate 1.

    `failed`, a scalar or `(n,)`, marks datapoints as NaN that `logits` do not mark themselves.
    """
    log_probs = jax.nn.log_softmax(logits, axis=1)
    ones = jnp.ones(expert.shape, logits.dtype)
    kept = jnp.ones(expert.shape, bool) if kept is None else kept
    weight = jnp.where(kept, ones if weight is None else weight, 0)
    # The logits' own NaN stays in the sums of `log_softmax`; other values could lose it on the way.
    failed = beside(jnp.asarray(failed | jnp.isnan(log_probs).any(axis=1)), expert) | (expert < 0)
    routing = Routing(
        expert=expert,
        kept=kept,
        weight=jax.lax.stop_gradient(jnp.where(failed, jnp.nan, weight)),
        log_prob=jnp.where(failed, jnp.nan, at_experts(log_probs, expert)),
        gate=jnp.where(failed, jnp.nan, ones if gate is None else gate),
        log_probs=log_probs,
        pair_weight=None if pair_weight is None else _kept_by_both(kept, pair_weight, failed),
    )
    if expert.ndim == 1:
        return routing if present is None else _without_absent(routing, present, present)
    somebody = expert < logits.shape[1]  # not in the places of a datapoint that may have fewer experts
    return _without_absent(routing, present, somebody if present is None else somebody & present[:, None])


def _without_absent(routing: Routing, present: Array | None, there: Array) -> Routing:
    return Routing(
        expert=jnp.where(there, routing.expert, routing.log_probs.shape[1]),
        kept=routing.kept & there,
        weight=jnp.where(there, routing.weight, 0),
        log_prob=jnp.where(there, routing.log_prob, 0),
        gate=jnp.where(there, routing.gate, 0),
        log_probs=without_absent(routing.log_probs, present),
        pair_weight=None if routing.pair_weight is None else _kept_by_both(there, routing.pair_weight),
    )


def _kept_by_both(kept: Array, pair_weight: Array, failed: Array | bool = False) -> Array:
    """`pair_weight` `(n, m, m)` where both experts of a pair have `kept` `(n, m)` the datapoint, 0 elsewhere; NaN where
    `failed`, which is of the shape of `kept`.
    """
    both = kept[:, :, None] & kept[:, None, :]
    pair_weight = jnp.where(jnp.expand_dims(failed, -1), jnp.nan, jnp.where(both, pair_weight, 0))
    return jax.lax.stop_gradient(pair_weight)


def without_absent(log_probs: Array, present: Array | None) -> Array:
    """`log_probs` `(n, k)` with no expert for datapoints that take no part."""
    return log_probs if present is None else jnp.where(present[:, None], log_probs, -jnp.inf)


def first_come(
    logits: Array,
    expert: Array,
    places: tuple[int, ...],
    present: Array | None,
    *,
    gate: Array | None = None,
    failed: Array | bool = False,
) -> Routing:
    """The record of what datapoints chose, those beyond their expert's capacity dropped by position in the batch.

    The gate is the probability of the chosen expert, unless given; of several experts, normalised over those chosen.
    Weights are 1, and 0 for the dropped.
    """
    k = logits.shape[1]
    queue = expert if present is None else jnp.where(beside(present, expert), expert, k)
    place = places_in_queues(queue.reshape(-1), k).reshape(expert.shape)
    kept = place < jnp.asarray(places, jnp.int32)[expert]
    gate = gate_of(jax.nn.log_softmax(logits, axis=1), expert) if gate is None else gate
    return assemble(logits, expert, present, gate=gate, kept=kept, failed=failed)


def gate_of(log_scores: Array, expert: Array) -> Array:
    """The score of the expert of every datapoint; of `(n, m)` experts their shares of the sum of their scores."""
    own = at_experts(log_scores, expert)
    if expert.ndim == 1:
        return jnp.exp(own)
    return jax.nn.softmax(jnp.where(expert < log_scores.shape[1], own, -jnp.inf), axis=1)
