"""What a method must offer to be trained and compared."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import ExpertChoiceRouting, Routing, load
from models import OneRoutedLayer

RouterState = Any
"""What a method carries from batch to batch besides the parameters: a pytree of arrays, or None."""


class Traffic(NamedTuple):
    """Where the datapoints of a batch went."""

    demand: Array
    """`(k,)` datapoints that the router sent to each expert."""
    load: Array
    """`(k,)` datapoints that each expert computed."""
    skipped: Array
    """`()` fraction of the datapoints that no expert computed."""


class Step(NamedTuple):
    """What comes with the loss of a batch."""

    router_state: RouterState
    traffic: Traffic


@dataclass(frozen=True)
class Method(abc.ABC):
    """A router with its way of training and its own way of predicting.

    Training needs of a `model` that it can be called as a `models.layers.MoELayer` and has `losses` and `init_state`;
    the own way of predicting here is for one routed layer whose experts can all be enumerated.
    """

    name: str
    own_way: str
    """How it predicts at test, in words."""
    kind: ClassVar[str]
    """`weighted` (unbiased), `uncorrected` (the same draws without their weights) or `biased` (by design)."""
    whole_test_set: ClassVar[bool] = False
    """Whether its own prediction for a datapoint depends on the others, so that it is made for all of them at once."""

    @abc.abstractmethod
    def init_state(self, model: Any) -> RouterState:
        """The state before the first batch."""

    @abc.abstractmethod
    def loss(
        self, key: Array, model: Any, x: Array, y: Array, router_state: RouterState, capacity: int
    ) -> tuple[Array, Step]:
        """The loss to differentiate on a batch of `n` datapoints, with `capacity` places per expert."""

    @abc.abstractmethod
    def own_outputs(self, model: OneRoutedLayer, x: Array, router_state: RouterState, capacity: int) -> Array:
        """`(n, out)`: one output per datapoint, the method's own prediction; `capacity` is that of a batch of `n`."""

    def own_losses(self, model: OneRoutedLayer, x: Array, y: Array, router_state: RouterState, capacity: int) -> Array:
        """`(n,)`: the loss of the method's own prediction."""
        return model.losses(self.own_outputs(model, x, router_state, capacity), y)

    def own_log_likelihoods(
        self, model: OneRoutedLayer, x: Array, y: Array, router_state: RouterState, capacity: int
    ) -> Array:
        """`(n,)` nats: of the method's own predictive distribution, where the loss is a negative log-likelihood."""
        return -self.own_losses(model, x, y, router_state, capacity)


def layers_of(routing: Any) -> list[Routing | ExpertChoiceRouting]:
    """The routings of a model's layers, of which there may be one."""
    return jax.tree.leaves(routing, is_leaf=lambda part: isinstance(part, Routing | ExpertChoiceRouting))


def traffic_of(routing: Any) -> Traffic:
    """Who went where, mean over the layers."""
    layers = [_traffic(layer) for layer in layers_of(routing)]
    return jax.tree.map(lambda *parts: sum(parts) / len(parts), *layers)


def _traffic(routing: Routing | ExpertChoiceRouting) -> Traffic:
    """Experts that choose send for just what they compute."""
    computed = load(routing).astype(jnp.float32)
    if isinstance(routing, ExpertChoiceRouting):
        return Traffic(computed, computed, jnp.mean(routing.experts_per_datapoint == 0))
    everyone = routing._replace(kept=jnp.ones_like(routing.kept))
    return Traffic(load(everyone).astype(jnp.float32), computed, jnp.mean(~routing.kept))


def choose_outputs(model: OneRoutedLayer, x: Array, expert: Array) -> Array:
    """`(n, out)`: the output of expert `expert[i]` for every datapoint, no gate."""
    return jnp.take_along_axis(model.all_outputs(x), expert[:, None, None], axis=1)[:, 0]


def most_probable(model: OneRoutedLayer, x: Array) -> Array:
    """`(n, out)`: the output of every datapoint's most probable expert, no gate."""
    return choose_outputs(model, x, jnp.argmax(model.logits(x), axis=1))


def mixture_log_likelihoods(model: OneRoutedLayer, x: Array, y: Array) -> Array:
    """`(n,)` nats: the log-likelihood of the mixture of all experts by `p`, by enumeration."""
    return jax.nn.logsumexp(jax.nn.log_softmax(model.logits(x), axis=1) - model.all_losses(x, y), axis=1)
