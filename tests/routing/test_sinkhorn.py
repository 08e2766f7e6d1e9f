"""The plan against Sinkhorn's algorithm in its plain form, and the routing that follows from it."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gumbel_moe.routing import SinkhornRouter, load
from gumbel_moe.routing._sinkhorn import log_plan
from tests.routing import routers


def plain_plan(scores, loads, rounds=5000):
    """Rows to 1 / n and columns to `loads / n` in turn."""
    plan = np.exp(scores - scores.max(axis=1, keepdims=True))
    n = len(plan)
    for _ in range(rounds):
        plan *= (loads / n) / plan.sum(axis=0)
        plan /= n * plan.sum(axis=1, keepdims=True)
    return plan


@pytest.mark.parametrize("capacity", [4, (1, 4, 9)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_plan_and_routing(capacity, temperature, x64):
    logits = routers.logits(12, 3)
    places = np.broadcast_to(capacity, 3)
    expected = plain_plan(np.asarray(logits, np.float64) / temperature, 12 * places / places.sum())
    plan = np.exp(log_plan(logits / temperature, 12 * places / places.sum(), 500))
    tolerance = 1e-10 if x64 else 1e-6
    np.testing.assert_allclose(plan, expected, atol=tolerance)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 12, atol=tolerance)
    np.testing.assert_allclose(plan.sum(axis=0), places / places.sum(), atol=tolerance)

    routing = SinkhornRouter(capacity, temperature, iterations=500)(routers.KEY, logits)
    np.testing.assert_array_equal(routing.expert, expected.argmax(axis=1))
    np.testing.assert_array_equal(routing.kept, routers.first_come(expected.argmax(axis=1), places))
    np.testing.assert_array_equal(routing.weight, routing.kept)
    np.testing.assert_allclose(routing.gate, routers.softmax(logits)[np.arange(12), routing.expert], rtol=1e-5)


def test_default_iterations_are_enough_for_logits_of_usual_size():
    for seed in range(5):
        plan = np.exp(log_plan(routers.logits(200, 8, seed, scale=2.0), np.full(8, 25.0), SinkhornRouter(1).iterations))
        np.testing.assert_allclose(plan.sum(axis=0), 1 / 8, rtol=0.01)


def test_low_temperature_approaches_the_exact_assignment():
    logits = routers.logits(12, 3)
    routing = SinkhornRouter(4, temperature=0.02, iterations=3000)(routers.KEY, logits)
    _, column = linear_sum_assignment(np.repeat(logits, 4, axis=1), maximize=True)
    np.testing.assert_array_equal(routing.expert, column // 4)


def test_scores_far_apart_do_not_underflow():
    # Expert 1 has probability 0 in float32 for everyone, and still gets its half.
    logits = jnp.stack([jnp.arange(8.0), jnp.full(8, -500.0)], axis=1)
    assert load(SinkhornRouter(8, iterations=500)(routers.KEY, logits)).tolist() == [4, 4]


def test_an_expert_forbidden_to_all_stays_empty():
    logits = routers.logits().at[:, 1].set(-jnp.inf)
    routing = SinkhornRouter(8)(routers.KEY, logits)
    assert load(routing)[1] == 0
    assert jnp.isfinite(routing.gate).all()
