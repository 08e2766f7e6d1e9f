"""Routers that draw: trained by the score-function estimator on the experts they drew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import score_function_loss
from inference.training.methods._method import (
    Method,
    RouterState,
    Step,
    mixture_log_likelihoods,
    most_probable,
    traffic_of,
)
from models import OneRoutedLayer

_DECAY = 0.99  # of the running mean that serves as the baseline


@dataclass(frozen=True, kw_only=True)
class DrawnMethod(Method):
    """Every datapoint's expert is drawn, in training by the router and at test from its own `p`; of one routed layer.

    The baseline is the running mean of the losses of earlier batches: it does not depend on the current draw, so it
    adds no bias.
    """

    make_router: Callable[[int], Any]
    """From the capacity of an expert to the router."""
    own_way: str = "one expert drawn from p; for accuracy and picture, the output of the most probable expert"

    def init_state(self, model: Any) -> RouterState:
        """Weighted sum of the losses so far and sum of the weights: their ratio is right from the first batch on."""
        return jnp.zeros(()), jnp.zeros(())

    def loss(
        self, key: Array, model: Any, x: Array, y: Array, router_state: RouterState, capacity: int
    ) -> tuple[Array, Step]:
        """The surrogate whose value and gradient estimate those of the enumerated objective."""
        outputs, routing, _ = model(key, x, self.make_router(capacity))
        losses = model.losses(outputs, y)
        total, seen = router_state
        value = score_function_loss(routing, losses, baseline=total / jnp.maximum(seen, 1 - _DECAY))
        # Over the weights, not over n: also without the right weights this is the loss of those that were computed.
        mean = jnp.sum(routing.weight * losses) / jnp.maximum(jnp.sum(routing.weight), 1)
        router_state = (_DECAY * total + (1 - _DECAY) * jax.lax.stop_gradient(mean), _DECAY * seen + 1 - _DECAY)
        return value, Step(router_state, traffic_of(routing))

    def own_outputs(self, model: OneRoutedLayer, x: Array, router_state: RouterState, capacity: int) -> Array:
        """The output of the most probable expert."""
        return most_probable(model, x)

    def own_losses(self, model: OneRoutedLayer, x: Array, y: Array, router_state: RouterState, capacity: int) -> Array:
        r"""$\sum_j p_{ij} f_{ij}$, the expectation over the expert that is drawn."""
        return jnp.sum(jax.nn.softmax(model.logits(x), axis=1) * model.all_losses(x, y), axis=1)

    def own_log_likelihoods(
        self, model: OneRoutedLayer, x: Array, y: Array, router_state: RouterState, capacity: int
    ) -> Array:
        r"""$\log \sum_j p_{ij} e^{-f_{ij}}$: an expert that is drawn makes the prediction a mixture."""
        return mixture_log_likelihoods(model, x, y)


class WeightedMethod(DrawnMethod):
    """The draw is weighted so that the gradient is unbiased."""

    kind = "weighted"


class UncorrectedMethod(DrawnMethod):
    """The same draw without its weights: what the capacities do to the gradient is left in."""

    kind = "uncorrected"
