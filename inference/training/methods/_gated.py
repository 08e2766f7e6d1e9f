"""Biased routers: the expert's output is multiplied by a gate, through which the router learns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import Routing, SwitchRouter, load_balancing_loss
from inference.training.methods._method import Method, Prediction, Step, layers_of, traffic_of
from models import OneRoutedLayer

_NO_KEY = 0  # none of these routers draws


@dataclass(frozen=True, kw_only=True)
class GatedMethod(Method):
    """Trains on the mean loss of the gated outputs; a datapoint that no expert takes predicts 0.

    What is beyond an expert's capacity is dropped in training, nothing is at test.
    """

    kind: str = "biased"
    at_test: Callable[[Array, int | None], Routing] | None = None
    """From the test logits, and the experts per datapoint, to a routing that drops nobody; None for that of the router
    with room for all."""
    balancing: float = 0.0
    """Factor of the load-balancing loss."""

    def init_state(self, model: Any) -> Any:
        """That of the router, such as its bias; of several layers each its own."""
        return model.init_state(self.make_router(1))

    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The mean loss of the gated outputs."""
        outputs, routing, router_state = model(key, x, self.make_router(capacity), router_state)
        value = jnp.mean(model.losses(outputs, y))
        if self.balancing:
            value += self.balancing * sum(load_balancing_loss(layer) for layer in layers_of(routing))
        return value, Step(router_state, traffic_of(routing))

    def predict(self, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int) -> Prediction:
        """Gated outputs of the best experts, under the router's state of the end of training if it has one."""
        outputs = self._outputs_at_test(model, x, router_state, capacity)
        losses = model.losses(outputs, y)
        return Prediction(outputs, losses, -losses)

    def _outputs_at_test(self, model: OneRoutedLayer, x: Array, router_state: Any, capacity: int) -> Array:
        logits = model.logits(x)
        if self.at_test is None:
            routing = self.make_router(x.shape[0])(jax.random.key(_NO_KEY), logits, router_state)
        else:
            routing = self.at_test(logits, self.experts_per_datapoint)
        outputs = routing.gate[..., None] * model.outputs_of(x, routing.expert)
        return outputs if self.experts_per_datapoint is None else jnp.sum(outputs, axis=1)


@dataclass(frozen=True, kw_only=True)
class ExpertChoiceMethod(GatedMethod):
    """Every expert takes its best datapoints, in training and at test: there, of the whole test set."""

    whole_test_set = True

    own_way: str = "expert choice on the whole test set, gated outputs summed; 0 for a datapoint that no expert takes"

    def with_experts(self, number: int) -> Self:
        """The same: the capacity says how many experts a datapoint has in the mean."""
        return self

    def _outputs_at_test(self, model: OneRoutedLayer, x: Array, router_state: Any, capacity: int) -> Array:
        """The gated sum over the experts that take a datapoint."""
        return model(jax.random.key(_NO_KEY), x, self.make_router(capacity)).outputs


def best(logits: Array, number: int | None) -> Routing:
    """The best expert of every datapoint with its probability as the gate, or the best ones, their gates normalised."""
    return SwitchRouter(logits.shape[0], experts_per_datapoint=number)(jax.random.key(_NO_KEY), logits)


def best_by_sigmoid(logits: Array, number: int | None) -> Routing:
    """The best expert of every datapoint, or the best ones, with the logistic function of the logit as the gate."""
    routing = best(logits, number)
    if number is None:
        return routing._replace(gate=jax.nn.sigmoid(jnp.max(logits, axis=1)))
    return routing._replace(gate=jax.nn.sigmoid(jnp.take_along_axis(logits, routing.expert, axis=1)))
