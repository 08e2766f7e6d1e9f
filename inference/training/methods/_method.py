"""What a method must offer to be trained and compared."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import ExpertChoiceRouting, Routing, load
from models import OneRoutedLayer


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

    router_state: Any
    traffic: Traffic


class Prediction(NamedTuple):
    """What a method predicts, and how well."""

    outputs: Array
    """`(n, out)`: one output per datapoint."""
    losses: Array
    """`(n,)`."""
    log_likelihoods: Array
    """`(n,)` nats: of the predictive distribution, where the loss is a negative log-likelihood."""


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """A router with its way of training and its own way of predicting.

    The router's state is what is carried from batch to batch besides the parameters: a pytree of arrays, or None.
    Training needs of a `model` that it can be called as a `models.layers.MoELayer` and has `losses` and `init_state`;
    the predictions here are for one routed layer whose experts can all be enumerated.
    """

    name: str
    kind: str
    """`weighted` (unbiased), `uncorrected` (the same draws without their weights), `biased` (by design), or `reference`
    (the exact gradient, by enumeration)."""
    own_way: str
    """How it predicts at test, in words."""
    make_router: Callable[..., Any]
    """From the capacity of an expert to the router used in training."""
    experts_per_datapoint: int | None = None
    """As its router is asked for; None for one."""
    whole_test_set: ClassVar[bool] = False
    """Whether its prediction for a datapoint depends on the others, so that it is made for all of them at once."""

    def with_experts(self, number: int) -> Self:
        """The method with so many experts for every datapoint; `ValueError` where it has no such variant."""
        make = partial(self.make_router, experts_per_datapoint=number)
        return replace(self, experts_per_datapoint=number, make_router=make)

    @abc.abstractmethod
    def init_state(self, model: Any) -> Any:
        """The router's state before the first batch."""

    @abc.abstractmethod
    def loss(self, key: Array, model: Any, x: Array, y: Array, router_state: Any, capacity: int) -> tuple[Array, Step]:
        """The loss to differentiate on a batch of `n` datapoints, with `capacity` places per expert."""

    @abc.abstractmethod
    def predict(self, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int) -> Prediction:
        """The method's own prediction for the `n` datapoints of `x`; `capacity` is that of a batch of `n`."""


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
