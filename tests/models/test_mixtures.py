"""What both models promise: shapes, buffers that give what enumeration gives, losses per datapoint."""

import doctest
import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gumbel_moe.routing import SkipRouter, combine, dispatch
from models.digits import DigitsMixture
from models.toy import ToyMixture

N = 12


def digits_batch():
    key = jax.random.key(3)
    return jax.random.uniform(key, (N, 64)), jnp.arange(N) % 10


def toy_batch():
    x = jnp.linspace(0.04, 0.96, N)[:, None]
    return x, jnp.sin(5 * x)


CASES = {
    "toy": (ToyMixture, toy_batch, 2, 1),
    "digits": (jax.jit(DigitsMixture), digits_batch, 8, 10),
    "one expert": (jax.jit(partial(DigitsMixture, num_experts=1)), digits_batch, 1, 10),
}


@pytest.fixture(params=CASES)
def case(request):
    make, batch, k, out = CASES[request.param]
    return make(jax.random.key(1)), *batch(), k, out


def test_shapes(case):
    model, x, y, k, out = case
    assert model.num_experts == k
    assert model.logits(x).shape == (N, k)
    assert model.all_outputs(x).shape == (N, k, out)
    assert model.all_losses(x, y).shape == (N, k)
    assert model.expert_outputs(jnp.zeros((k, 5, x.shape[1]))).shape == (k, 5, out)


def test_all_leaves_are_arrays(case):
    model, *_ = case
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model))


def test_shapes_in_signatures_are_checked(case):
    model, x, _, k, _ = case
    with pytest.raises(TypeCheckError):
        model.logits(x[:, 0])
    with pytest.raises(TypeCheckError):
        model.expert_outputs(jnp.zeros((k, 5, x.shape[1] + 1)))


def test_dispatched_experts_give_what_enumeration_gives(case):
    model, x, y, k, _ = case
    capacity = max(1, N // k - 1)  # somebody is skipped
    routing = SkipRouter(capacity)(jax.random.key(0), model.logits(x))
    outputs = combine(model.expert_outputs(dispatch(x, routing, capacity)), routing)
    rows, kept = np.arange(N), np.asarray(routing.kept)
    assert 0 < kept.sum() < N
    expected = np.asarray(model.all_outputs(x))[rows, routing.expert]
    np.testing.assert_allclose(outputs[kept], expected[kept], rtol=1e-5, atol=1e-6)
    assert not np.asarray(outputs)[~kept].any()
    losses = np.asarray(model.all_losses(x, y))[rows, routing.expert]
    np.testing.assert_allclose(model.losses(outputs, y)[kept], losses[kept], rtol=1e-5, atol=1e-6)


def test_many_models_at_once(case):
    model, x, y, _, _ = case
    scales = jnp.array([0.5, 1.0, 2.0])
    several = jax.tree.map(lambda leaf: jax.vmap(lambda scale: scale * leaf)(scales), model)
    losses = jax.jit(jax.vmap(lambda one: one.all_losses(x, y)))(several)
    for place, scale in enumerate(scales):
        alone = jax.tree.map(lambda leaf, scale=scale: scale * leaf, model).all_losses(x, y)
        np.testing.assert_allclose(losses[place], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_starting_points_follow_the_key(name):
    make = CASES[name][0]
    model, same, other = (make(jax.random.key(number)) for number in (1, 1, 2))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, model, same)))
    assert not any(jax.tree.leaves(jax.tree.map(jnp.array_equal, model, other)))


@pytest.mark.parametrize("name", ["toy", "digits", "layers.moe"])
def test_examples_in_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"models.{name}"))
    assert tried > 0
    assert failed == 0
