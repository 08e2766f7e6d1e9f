"""Routers check what they are made of, and are values: equal, hashable, frozen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe import routing
from gumbel_moe.routing import (
    BaseRouter,
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    LossFreeRouter,
    QuantileBalancingRouter,
    SinkhornRouter,
    SwitchRouter,
)
from tests.routing import routers

# Not expert choice, which takes one number.
CAPACITATED = sorted(
    {getattr(routing, entry.made_by) for entry in routing.ROUTERS.values() if entry.limited and entry.one_expert},
    key=lambda made: made.__name__,
)


@pytest.mark.parametrize("kind", CAPACITATED)
@pytest.mark.parametrize(
    ("capacity", "message"),
    [
        (0, "capacity must be at least 1"),
        (-2, "capacity must be at least 1"),
        ((3, 0, 3), "capacity must be at least 1"),
        (2.5, "capacity must be an int"),
        (3.0, "capacity must be an int"),
        (True, "capacity must be an int"),
        ("3", "capacity must be an int"),
        (None, "capacity must be an int"),
        ((), "capacity must be an int"),
        (((3, 3),), "capacity must be an int"),
    ],
)
def test_bad_capacity(kind, capacity, message):
    with pytest.raises(ValueError, match=message):
        kind(capacity)


@pytest.mark.parametrize("kind", CAPACITATED)
def test_capacities_of_another_number_of_experts(kind):
    with pytest.raises(ValueError, match=r"capacity must be an int or \(3,\) ints"):
        kind((4, 4))(routers.KEY, routers.logits())


@pytest.mark.parametrize("kind", [GumbelMatchingRouter, BaseRouter])
def test_too_little_room(kind):
    with pytest.raises(ValueError, match="capacity has room for 6 datapoints"):
        kind(2)(routers.KEY, routers.logits())
    with pytest.raises(ValueError, match="capacity has room for 6 datapoints"):
        jax.jit(kind(2))(routers.KEY, routers.logits())


@pytest.mark.parametrize("kind", CAPACITATED)
def test_traced_capacity(kind):
    with pytest.raises(TypeError, match=r"capacity must be an int .* known when the router is made"):
        jax.jit(lambda c: kind(c)(routers.KEY, routers.logits()).expert)(3)


@pytest.mark.parametrize("capacity", [0, -1, 2.0, (2, 2, 2)])
def test_bad_expert_choice_capacity(capacity):
    with pytest.raises(ValueError, match="capacity must be a positive int"):
        ExpertChoiceRouter(capacity)


def test_expert_choice_cannot_take_more_than_there_are():
    with pytest.raises(ValueError, match="capacity must be at most the number of datapoints, 8, got 9"):
        ExpertChoiceRouter(9)(routers.KEY, routers.logits())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SinkhornRouter(2, temperature=0.0), "temperature must be finite and positive"),
        (lambda: SinkhornRouter(2, temperature=np.inf), "temperature must be finite and positive"),
        (lambda: SinkhornRouter(2, iterations=0), "iterations must be a positive int"),
        (lambda: SinkhornRouter(2, iterations=1.5), "iterations must be a positive int"),
        (lambda: LossFreeRouter(2, rate=-0.1), "rate must be finite and positive"),
        (lambda: LossFreeRouter(2, score="tanh"), "score must be one of 'sigmoid', 'softmax', got 'tanh'"),
        (lambda: QuantileBalancingRouter(2, score="sigmoid"), "score must be one of 'softmax', 'log_softmax'"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", CAPACITATED)
def test_routers_are_values(kind):
    router = kind(np.array([4, 3, 3]))
    assert router == kind([4, 3, 3]) == kind(jnp.array([4, 3, 3])) != kind(4)
    assert hash(router) == hash(kind((4, 3, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        router.capacity = 3


def test_a_router_can_be_a_static_argument():
    route = jax.jit(lambda router, logits: router(routers.KEY, logits).expert, static_argnums=0)
    np.testing.assert_array_equal(route(SwitchRouter(2), routers.logits()), routers.logits().argmax(axis=1))
