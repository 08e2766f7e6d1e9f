"""Routers that draw: trained by the score-function estimator on the experts they drew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import score_function_loss
from inference.training.methods._method import Method, Prediction, Step, traffic_of
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

    def init_state(self, model: Any) -> Any:
        """Weighted sum of the losses so far and sum of the weights: their ratio is right from the first batch on."""
        return jnp.zeros(()), jnp.zeros(())

    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The surrogate whose value and gradient estimate those of the enumerated objective."""
        outputs, routing, _ = model(key, x, self.make_router(capacity))
        losses = model.losses(outputs, y)
        total, seen = router_state
        value = score_function_loss(routing, losses, baseline=total / jnp.maximum(seen, 1 - _DECAY))
        # Over the weights, not over n: also without the right weights this is the loss of those that were computed.
        mean = jnp.sum(routing.weight * losses) / jnp.maximum(jnp.sum(routing.weight), 1)
        router_state = (_DECAY * total + (1 - _DECAY) * jax.lax.stop_gradient(mean), _DECAY * seen + 1 - _DECAY)
        return value, Step(router_state, traffic_of(routing))

    def predict(self, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int) -> Prediction:
        r"""The output of the most probable expert, the expected loss $\sum_j p_{ij} f_{ij}$, and
        $\log \sum_j p_{ij} e^{-f_{ij}}$: an expert that is drawn makes the prediction a mixture.
        """
        expected = jnp.sum(jax.nn.softmax(model.logits(x), axis=1) * model.all_losses(x, y), axis=1)
        return Prediction(model.most_probable_outputs(x), expected, model.mixture_log_likelihoods(x, y))
