"""Expert choice against a sort of every expert's column."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import ExpertChoiceRouter, combine, dispatch, load
from tests.routing import routers


@pytest.mark.parametrize("capacity", [3, 10])
def test_equals_argsort(capacity, x64):
    for seed in range(3):
        check(routers.logits(10, 4, seed), capacity, 1e-12 if x64 else 1e-5)


def check(logits, capacity, tolerance):
    routing = ExpertChoiceRouter(capacity)(routers.KEY, logits)
    p = routers.softmax(logits)
    taken = np.argsort(-p.T, axis=1, kind="stable")[:, :capacity]
    np.testing.assert_array_equal(routing.datapoint, taken)
    np.testing.assert_allclose(routing.gate, np.take_along_axis(p.T, taken, axis=1), rtol=tolerance)
    counts = np.bincount(taken.ravel(), minlength=10)
    np.testing.assert_array_equal(routing.experts_per_datapoint, counts)
    assert load(routing).tolist() == [capacity] * 4
    if capacity == 3:  # what makes it no Routing: some have several experts, some none
        assert counts.max() > 1
        assert counts.min() == 0


def test_forbidden_datapoints_leave_places_empty():
    logits = jnp.array([[0.0, -jnp.inf], [1.0, -jnp.inf], [2.0, 3.0]])
    routing = ExpertChoiceRouter(2)(routers.KEY, logits)
    assert routing.datapoint.tolist() == [[0, 1], [2, -1]]
    np.testing.assert_allclose(routing.gate, [[1, 1], [1 / (1 + np.exp(-1)), 0]], rtol=1e-6)
    assert routing.experts_per_datapoint.tolist() == [1, 1, 1]
    assert load(routing).tolist() == [2, 1]


def test_order_survives_underflow():
    # All but expert 0 have probability 0 in float32; the logits still tell who is best for them.
    logits = jnp.array([[900.0, 3.0], [900.0, 5.0], [900.0, 4.0]])
    assert ExpertChoiceRouter(2)(routers.KEY, logits).datapoint[1].tolist() == [1, 2]


def test_dispatch_and_combine_sum_the_experts():
    logits = routers.logits(10, 4)
    routing = ExpertChoiceRouter(3)(routers.KEY, logits)
    tokens = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
    buffers = dispatch(tokens, routing, capacity=5)
    np.testing.assert_array_equal(buffers[:, :3], tokens[routing.datapoint])
    assert (buffers[:, 3:] == 0).all()
    outputs = (buffers + 1) * jnp.arange(1.0, 5)[:, None, None]  # every expert its own factor
    expected, plain = np.zeros((2, 10, 2))
    for j, slots in enumerate(np.asarray(routing.datapoint)):
        for s, i in enumerate(slots):
            plain[i] += (j + 1) * (tokens[i] + 1)
            expected[i] += float(routing.gate[j, s]) * (j + 1) * (tokens[i] + 1)
    np.testing.assert_allclose(combine(outputs, routing), plain, rtol=1e-5)
    np.testing.assert_allclose(combine(outputs, routing, gated=True), expected, rtol=1e-5)


def test_empty_places_reach_nobody():
    logits = jnp.array([[0.0, -jnp.inf], [1.0, -jnp.inf], [2.0, 3.0]])
    routing = ExpertChoiceRouter(2)(routers.KEY, logits)
    buffers = dispatch(jnp.ones(3), routing, capacity=2)
    assert buffers.tolist() == [[1, 1], [1, 0]]
    assert combine(buffers + 1, routing).tolist() == [2, 2, 2]


def test_gates_are_differentiable():
    tokens = jnp.arange(1.0, 9)

    def total(logits):
        routing = ExpertChoiceRouter(2)(routers.KEY, logits)
        return combine(dispatch(tokens, routing, 2), routing, gated=True).sum()

    logits = routers.logits()
    p, chosen = routers.softmax(logits), ExpertChoiceRouter(2)(routers.KEY, logits).datapoint
    share = np.zeros((8, 3))
    share[np.asarray(chosen), np.arange(3)[:, None]] = 1
    by_hand = np.arange(1, 9)[:, None] * p * (share - (p * share).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(jax.jit(jax.grad(total))(logits), by_hand, atol=1e-5)
