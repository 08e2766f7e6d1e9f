"""Biased routers: the expert's output is multiplied by a gate, through which the router learns."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import (
    ExpertChoiceRouter,
    ExpertChoiceRouting,
    Routing,
    SwitchRouter,
    combine,
    dispatch,
    load_balancing_loss,
)
from inference.methods._method import Memory, Method, Step, choose_outputs, traffic_of
from models import Mixture

_NO_KEY = 0  # none of these routers draws


@dataclass(frozen=True)
class _ByGate(Method):
    """Trains on the mean loss of the gated outputs; a datapoint that no expert takes predicts 0."""

    kind = "biased"

    @abc.abstractmethod
    def route(
        self, key: Array, logits: Array, memory: Memory, capacity: int
    ) -> tuple[Routing | ExpertChoiceRouting, Memory]:
        """The routing of a training batch, and the memory after it."""

    def extra(self, routing: Routing | ExpertChoiceRouting) -> Array | float:
        """What is added to the loss."""
        return 0.0

    def loss(self, key: Array, model: Mixture, x: Array, y: Array, memory: Memory, capacity: int) -> tuple[Array, Step]:
        """The mean loss of the gated outputs."""
        routing, memory = self.route(key, model.logits(x), memory, capacity)
        buffers = model.expert_outputs(dispatch(x, routing, capacity))
        value = jnp.mean(model.losses(combine(buffers, routing, gated=True), y)) + self.extra(routing)
        return value, Step(memory, traffic_of(routing))


@dataclass(frozen=True, kw_only=True)
class GatedMethod(_ByGate):
    """One expert for every datapoint; what is beyond its capacity is dropped in training, nothing is at test."""

    make_router: Callable[[int], Callable[[Array, Array], Routing]]
    """From the capacity of an expert to the router used in training."""
    at_test: Callable[[Array], Routing]
    """From the test logits to a routing that drops nobody."""
    balancing: float = 0.0
    """Factor of the load-balancing loss."""

    def route(self, key: Array, logits: Array, memory: Memory, capacity: int) -> tuple[Routing, Memory]:
        """The router's choice; nothing is remembered."""
        return self.make_router(capacity)(key, logits), None

    def extra(self, routing: Routing | ExpertChoiceRouting) -> Array | float:
        """The load-balancing loss, where it has a part."""
        return self.balancing * load_balancing_loss(routing) if self.balancing else 0.0

    def own_outputs(self, model: Mixture, x: Array, memory: Memory, capacity: int) -> Array:
        """Gate times output of the best expert."""
        return _gated_outputs(model, x, self.at_test(model.logits(x)))


@dataclass(frozen=True, kw_only=True)
class BiasedScoreMethod(_ByGate):
    """One expert for every datapoint, the best by a score plus a bias that is carried from batch to batch."""

    make_router: Callable[[int], Any]
    """From the capacity of an expert to the router."""
    own_way: str = "gate (unbiased) times output of the best expert by biased score, nobody dropped"

    def memory(self, num_experts: int) -> Memory:
        """The bias before the first batch."""
        return self.make_router(1).init(num_experts)

    def route(self, key: Array, logits: Array, memory: Memory, capacity: int) -> tuple[Routing, Memory]:
        """The router's choice under the bias, and the bias it leads to."""
        router = self.make_router(capacity)
        routing = router(key, logits, memory)
        return routing, router.update(memory, routing)

    def own_outputs(self, model: Mixture, x: Array, memory: Memory, capacity: int) -> Array:
        """Gate times output of the best expert under the bias of the end of training."""
        router = self.make_router(x.shape[0])
        return _gated_outputs(model, x, router(jax.random.key(_NO_KEY), model.logits(x), memory))


@dataclass(frozen=True, kw_only=True)
class ExpertChoiceMethod(_ByGate):
    """Every expert takes its best datapoints, in training and at test."""

    own_way: str = "expert choice on the whole test set, gated outputs summed; 0 for a datapoint that no expert takes"

    def route(self, key: Array, logits: Array, memory: Memory, capacity: int) -> tuple[ExpertChoiceRouting, Memory]:
        """The experts' choice; nothing is remembered."""
        return ExpertChoiceRouter(capacity)(key, logits), None

    def own_outputs(self, model: Mixture, x: Array, memory: Memory, capacity: int) -> Array:
        """The gated sum over the experts that take a datapoint."""
        routing = ExpertChoiceRouter(capacity)(jax.random.key(_NO_KEY), model.logits(x))
        return combine(model.expert_outputs(dispatch(x, routing, capacity)), routing, gated=True)


def best(logits: Array) -> Routing:
    """The best expert of every datapoint, with its probability as the gate."""
    return SwitchRouter(logits.shape[0])(jax.random.key(_NO_KEY), logits)


def best_by_sigmoid(logits: Array) -> Routing:
    """The best expert of every datapoint, with the logistic function of its logit as the gate."""
    return best(logits)._replace(gate=jax.nn.sigmoid(jnp.max(logits, axis=1)))


def _gated_outputs(model: Mixture, x: Array, routing: Routing) -> Array:
    return routing.gate[:, None] * choose_outputs(model, x, routing.expert)
