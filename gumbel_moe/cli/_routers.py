"""Routers by their names, and the gradient estimate that each of them trains with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._checks import check_room
from gumbel_moe.cli._diagnose_options import GATED
from gumbel_moe.cli._exits import BadArgumentError
from gumbel_moe.cli._mixture import RandomMixture
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import (
    BaseRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    LossFreeRouter,
    QuantileBalancingRouter,
    Routing,
    SinkhornRouter,
    SkipRouter,
    SwitchRouter,
)

Router = Callable[[Array, Array], Routing]
Capacity = int | tuple[int, ...]

_PROCESSES = {"skip": SkipRouter, "gumbel-matching": GumbelMatchingRouter}
_OTHERS = {
    "switch": SwitchRouter,
    "base": BaseRouter,
    "sinkhorn": SinkhornRouter,
    "loss-free": LossFreeRouter,
    "quantile-balancing": QuantileBalancingRouter,
}
NOBODY_SKIPPED = ("gumbel-matching", "base")
"""These need a place for every datapoint."""


def router_of(name: str, capacity: Capacity, corrected: bool) -> Router:
    """The router of that name."""
    if name in _PROCESSES:
        return _PROCESSES[name](capacity, corrected=corrected)
    if not corrected:
        raise BadArgumentError("--estimator", f"uncorrected is for {' and '.join(_PROCESSES)}; {name} has no weights")
    return IndependentRouter() if name == "independent" else _OTHERS[name](capacity)


def capacity_of(asked: Capacity | None, name: str, n: int, k: int) -> Capacity:
    """The capacity asked for, checked; without one, a fair share for everybody."""
    if asked is None:
        return -(-n // k)
    if isinstance(asked, tuple) and len(asked) != k:
        raise BadArgumentError("--capacity", f"must be one number or {k}, one for each expert, got {len(asked)}")
    if name in NOBODY_SKIPPED:
        try:
            check_room(jnp.broadcast_to(jnp.asarray(asked), (k,)), n)
        except ValueError as error:
            raise BadArgumentError("--capacity", error) from None
    return asked


def estimator(mixture: RandomMixture, name: str, router: Router) -> Callable[[Array], Any]:
    """A compiled function from a key to the gradient that the router trains with."""
    # A constant: as near to a running mean of earlier losses as a single batch comes.
    baseline = jnp.mean(mixture.all_losses(mixture.params))

    def loss(params: dict[str, Any], key: Array) -> Array:
        routing = router(key, mixture.logits(params))
        own = jnp.take_along_axis(mixture.outputs(params), routing.expert[:, None], axis=1)[:, 0]
        if name in GATED:
            return jnp.mean((routing.gate * routing.kept * own - mixture.y) ** 2)
        return score_function_loss(routing, (own - mixture.y) ** 2, baseline)

    return jax.jit(lambda key: jax.grad(loss)(mixture.params, key))
