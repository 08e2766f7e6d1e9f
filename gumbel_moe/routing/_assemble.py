"""What the routers share: normalised logits, first come first kept, and the making of the record."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced
from gumbel_moe.routing._record import Routing


def choose(table: Array, expert: Array) -> Array:
    """`table[i, expert[i]]`, the index clipped: entries of datapoints with expert -1 or `k` mean nothing."""
    return jnp.take_along_axis(table, jnp.clip(expert, 0, table.shape[1] - 1)[:, None], axis=1)[:, 0]


def positions(expert: Array, counted: Array, num_experts: int) -> Array:
    """Place `(n,)` of every datapoint in its expert's queue, by position in the batch; only those counted queue."""
    n = expert.shape[0]
    queue = jnp.where(counted, expert, num_experts)
    index = jnp.arange(n, dtype=jnp.int32)
    queue, who = jax.lax.sort((queue, index), num_keys=1, is_stable=True)
    first = jnp.searchsorted(queue, jnp.arange(num_experts + 1, dtype=queue.dtype)).astype(jnp.int32)
    return jnp.zeros(n, jnp.int32).at[who].set(index - first[queue])


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
    failed: Array | bool = False,
) -> Routing:
    """The record of a routing; by default everyone is kept, with weight and gate 1.

    `failed`, a scalar or `(n,)`, marks datapoints as NaN that `logits` do not mark themselves.
    """
    log_probs = jax.nn.log_softmax(logits, axis=1)
    ones = jnp.ones(expert.shape, logits.dtype)
    kept = jnp.ones(expert.shape, bool) if kept is None else kept
    weight = jnp.where(kept, ones if weight is None else weight, 0)
    # The logits' own NaN stays in the sums of `log_softmax`; other values could lose it on the way.
    failed = failed | (expert < 0) | jnp.isnan(log_probs).any(axis=1)
    routing = Routing(
        expert=expert,
        kept=kept,
        weight=jax.lax.stop_gradient(jnp.where(failed, jnp.nan, weight)),
        log_prob=jnp.where(failed, jnp.nan, choose(log_probs, expert)),
        gate=jnp.where(failed, jnp.nan, ones if gate is None else gate),
        log_probs=log_probs,
    )
    return routing if present is None else _without_absent(routing, present)


def _without_absent(routing: Routing, present: Array) -> Routing:
    return Routing(
        expert=jnp.where(present, routing.expert, routing.log_probs.shape[1]),
        kept=routing.kept & present,
        weight=jnp.where(present, routing.weight, 0),
        log_prob=jnp.where(present, routing.log_prob, 0),
        gate=jnp.where(present, routing.gate, 0),
        log_probs=without_absent(routing.log_probs, present),
    )


def without_absent(log_probs: Array, present: Array | None) -> Array:
    """`log_probs` `(n, k)` with no expert for datapoints that take no part."""
    return log_probs if present is None else jnp.where(present[:, None], log_probs, -jnp.inf)


def first_come(
    logits: Array,
    expert: Array,
    places: Array,
    present: Array | None,
    *,
    gate: Array | None = None,
    failed: Array | bool = False,
) -> Routing:
    """The record of one choice per datapoint, those beyond their expert's capacity dropped by position in the batch.

    The gate is the probability of the chosen expert, unless given. Weights are 1, and 0 for the dropped.
    """
    queueing = jnp.ones(expert.shape, bool) if present is None else present
    kept = positions(expert, queueing, logits.shape[1]) < places[expert]
    gate = jnp.exp(choose(jax.nn.log_softmax(logits, axis=1), expert)) if gate is None else gate
    return assemble(logits, expert, present, gate=gate, kept=kept, failed=failed)


def best_expert(scores: Array) -> Array:
    """The first best expert `(n,)` of every datapoint, int32."""
    return jax.lax.argmax(scores, 1, jnp.int32)
