"""Routers that draw: trained by the score-function estimator on the experts they drew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gumbel_moe.estimators import (
    RunningMean,
    StudentExperts,
    exact_loss,
    leave_one_out,
    score_function_loss,
    shared_network,
)
from inference.training.methods._method import Method, Prediction, Step, Traffic, traffic_of
from models import OneRoutedLayer

_BASELINE = RunningMean(decay=0.99)
_STUDENTS_RATE = 1e-2  # of Adam


@dataclass(frozen=True, kw_only=True)
class DrawnMethod(Method):
    """Every datapoint's expert is drawn, in training by the router and at test from its own `p`; of one routed layer.

    The baseline is the running mean of the losses of earlier batches: it does not depend on the current draw, so it
    adds no bias.
    """

    own_way: str = "one expert drawn from p; for accuracy and picture, the output of the most probable expert"

    def init_state(self, model: Any) -> Any:
        """Of the baseline."""
        return _BASELINE.init()

    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The surrogate whose value and gradient estimate those of the enumerated objective."""
        outputs, routing = self._drawn(key, model, x, capacity)
        losses = self._of_each(lambda outputs: model.losses(outputs, y))(outputs)
        value, router_state = _BASELINE.loss(router_state, routing, losses)
        return value, Step(router_state, traffic_of(routing))

    def _drawn(self, key: Array, model: Any, x: Array, capacity: int) -> tuple[Array, Any]:
        """The outputs of the experts that were drawn, one by one where a datapoint has several, and the routing."""
        one_by_one = {} if self.experts_per_datapoint is None else {"each": True}
        outputs, routing, _ = model(key, x, self.make_router(capacity), **one_by_one)
        return outputs, routing

    def _of_each(self, losses: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """Losses `(n,)` of one output for every datapoint, as those `(n, m)` of several."""
        return losses if self.experts_per_datapoint is None else jax.vmap(losses, 1, 1)

    def predict(self, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int) -> Prediction:
        r"""The output of the most probable expert, the expected loss $\sum_j p_{ij} f_{ij}$, and
        $\log \sum_j p_{ij} e^{-f_{ij}}$: an expert that is drawn makes the prediction a mixture.
        """
        expected = jnp.sum(jax.nn.softmax(model.logits(x), axis=1) * model.all_losses(x, y), axis=1)
        return Prediction(model.most_probable_outputs(x), expected, model.mixture_log_likelihoods(x, y))


@dataclass(frozen=True, kw_only=True)
class StudentMethod(DrawnMethod):
    """The baseline is the loss of a student's prediction of every expert's output."""

    def init_state(self, model: OneRoutedLayer) -> Any:
        """Of the student."""
        network, student = _student(model)
        return student.init(network.init(jax.random.key(0), model.num_inputs))

    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The surrogate, and the student after it."""
        outputs, routing = self._drawn(key, model, x, capacity)
        student = _student(model)[1]
        value, router_state = student.loss(router_state, routing, outputs, x, lambda outputs: model.losses(outputs, y))
        return value, Step(router_state, traffic_of(routing))


@dataclass(frozen=True, kw_only=True)
class TwoDrawsMethod(DrawnMethod):
    """Two draws of every batch, each the baseline of the other: twice the evaluations of experts."""

    def with_experts(self, number: int) -> Self:
        """None: two draws have two experts for a datapoint already."""
        raise ValueError(f"{self.name} has no variant with several experts per datapoint")

    def init_state(self, model: Any) -> Any:
        """Nothing is carried."""
        return None

    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The mean of two surrogates."""
        router = self.make_router(capacity)
        outputs, routing, _ = jax.vmap(lambda key: model(key, x, router))(jax.random.split(key))
        losses = jax.vmap(lambda outputs: model.losses(outputs, y))(outputs)
        value = jnp.mean(jax.vmap(score_function_loss)(routing, losses, leave_one_out(routing.weight, losses)))
        return value, Step(None, jax.tree.map(lambda both: jnp.mean(both, axis=0), jax.vmap(traffic_of)(routing)))


@dataclass(frozen=True, kw_only=True)
class ExactMethod(DrawnMethod):
    """The gradient of the objective itself, all experts on every datapoint: what estimators are measured against."""

    def with_experts(self, number: int) -> Self:
        """The same: every datapoint has all of them."""
        return self

    def init_state(self, model: Any) -> Any:
        """Nothing is carried."""
        return None

    def loss(
        self, key: Array, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int
    ) -> tuple[Array, Step]:
        """The mean over all experts, by enumeration."""
        n, k = x.shape[0], model.num_experts
        everybody = jnp.full(k, float(n))
        traffic = Traffic(everybody, everybody, jnp.zeros(()))
        return exact_loss(model.logits(x), model.all_losses(x, y)), Step(None, traffic)


def _student(model: OneRoutedLayer) -> tuple[Any, StudentExperts]:
    network = shared_network(model.num_experts, model.num_outputs)
    return network, StudentExperts(network.apply, optax.adam(_STUDENTS_RATE), network.decode)
