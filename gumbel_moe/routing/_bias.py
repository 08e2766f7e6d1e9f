"""Routing by biased scores: the bias chooses the expert, the unbiased score is the gate."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array, is_traced
from gumbel_moe._checks import check_logits, check_positive_int
from gumbel_moe._experts import at_expert, best_expert, best_experts
from gumbel_moe.routing._assemble import first_come, gate_of
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing


class BiasRouter(CapacitatedRouter, abc.ABC):
    """Base of the routers that carry a bias state, one number per expert."""

    def init(self, num_experts: int) -> Array:
        """The bias to start with: `(num_experts,)` zeros."""
        return jnp.zeros(check_positive_int("num_experts", num_experts))

    def __call__(
        self, key: Array, logits: ArrayLike, bias: ArrayLike | None = None, *, mask: ArrayLike | None = None
    ) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)` under `bias` `(k,)`, zero if None."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        number, places = self._number(logits.shape[1]), self._places(logits.shape[1])
        return self._as_asked(self._route(logits, check_bias(bias, logits), places, present, number))

    @abc.abstractmethod
    def _route(
        self, logits: Array, bias: Array, places: tuple[int, ...], present: Array | None, number: int
    ) -> Routing:
        """The routing of logits and a bias that have been checked; of one expert each where `number` is 1."""


def check_bias(bias: ArrayLike | None, scores: Array) -> Array:
    """`bias` as a floating-point array `(k,)` for scores `(n, k)`; None is zero."""
    num_experts = scores.shape[1]
    if bias is None:
        return jnp.zeros(num_experts, scores.dtype)
    array = as_array("bias", bias)
    if array.shape != (num_experts,) or not jnp.issubdtype(array.dtype, jnp.floating):
        got = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"bias must be floats of shape ({num_experts},), one per expert, got {got}")
    if not is_traced(array) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"bias must be finite, got {array.tolist()}")
    return jax.lax.stop_gradient(array)


def check_score(score: str, allowed: tuple[str, ...]) -> None:
    """Raise unless `score` is one of the names allowed."""
    if score not in allowed:
        raise ValueError(f"score must be one of {', '.join(map(repr, allowed))}, got {score!r}")


def check_routing(routing: Any) -> Routing:
    """`routing`, which must be of one expert per datapoint, or of a number of them."""
    if not isinstance(routing, Routing):
        raise TypeError(f"routing must be a Routing with one expert per datapoint, got {type(routing).__name__}")
    return routing


def biased(scores: Array, log_probs: Array, bias: Array) -> Array:
    """`scores + bias`, forbidden experts at `-inf`."""
    return jnp.where(jnp.isneginf(log_probs), -jnp.inf, scores + bias.astype(scores.dtype))


def route_by_bias(
    logits: Array,
    scores: Array,
    gate: Array,
    bias: Array,
    places: tuple[int, ...],
    present: Array | None,
    log_gate: Array,
    number: int,
) -> Routing:
    """Every datapoint to the best expert by `scores + bias`; `gate` `(n, k)` has the factor for every expert.

    Or to the `number` best, with gates in proportion to the exponential of `log_gate` `(n, k)`.
    """
    selection = biased(jax.lax.stop_gradient(scores), logits, bias)
    failed = jnp.isnan(selection).any(axis=1)
    if number > 1:
        expert = best_experts(selection, number)
        return first_come(logits, expert, places, present, gate=gate_of(log_gate, expert), failed=failed)
    expert = best_expert(selection)
    return first_come(logits, expert, places, present, gate=at_expert(gate, expert), failed=failed)
