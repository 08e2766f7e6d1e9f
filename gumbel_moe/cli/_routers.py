"""Routers by their names, and the gradient estimate that each of them trains with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import at_experts, beside
from gumbel_moe.cli._capacity import Capacity
from gumbel_moe.cli._mixture import RandomMixture
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import ROUTERS, Router, make_router


def router_of(
    name: str,
    capacity: Capacity,
    corrected: bool,
    floor: float | None = None,
    experts_per_datapoint: int | None = None,
) -> Router:
    """The router of that name; `corrected` is for those that draw under a capacity, `floor` for those that draw."""
    options: dict[str, Any] = {} if floor is None else {"floor": floor}
    options |= {} if experts_per_datapoint is None else {"experts_per_datapoint": experts_per_datapoint}
    return make_router(name if corrected else f"{name}_uncorrected", capacity, **options)


def estimator(mixture: RandomMixture, name: str, router: Router) -> Callable[[Array], Any]:
    """A compiled function from a key to the gradient that the router trains with."""
    # A constant: as near to a running mean of earlier losses as a single batch comes.
    baseline = jnp.mean(mixture.all_losses(mixture.params))

    def loss(params: dict[str, Any], key: Array) -> Array:
        routing = router(key, mixture.logits(params))
        own = at_experts(mixture.outputs(params), routing.expert)
        if ROUTERS[name].kind == "biased":
            gated = routing.gate * routing.kept * own
            predicted = gated if gated.ndim == 1 else jnp.sum(gated, axis=1)
            return jnp.mean((predicted - mixture.y) ** 2)
        return score_function_loss(routing, (own - beside(mixture.y, routing.expert)) ** 2, baseline)

    return jax.jit(lambda key: jax.grad(loss)(mixture.params, key))
