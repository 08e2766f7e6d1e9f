"""Switch against a loop over the batch, and its load-balancing loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import SkipRouter, SwitchRouter, load_balancing_loss
from tests.routing import routers


@pytest.mark.parametrize("capacity", [1, 3, 30, (1, 6, 2, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_equals_loop(capacity, seed):
    logits = routers.logits(20, 4, seed)
    routing = SwitchRouter(capacity)(routers.KEY, logits)
    p = routers.softmax(logits)
    expert = p.argmax(axis=1)
    np.testing.assert_array_equal(routing.expert, expert)
    kept = routers.first_come(expert, np.broadcast_to(capacity, 4))
    np.testing.assert_array_equal(routing.kept, kept)
    np.testing.assert_array_equal(routing.weight, kept)
    np.testing.assert_allclose(routing.gate, p.max(axis=1), rtol=1e-5)


def test_first_of_equal_experts():
    assert SwitchRouter(4)(routers.KEY, jnp.zeros((4, 3))).expert.tolist() == [0] * 4


def test_the_key_does_not_matter():
    first, second = (SwitchRouter(2)(jax.random.key(s), routers.logits()) for s in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("router", [SwitchRouter(2), SkipRouter(2)], ids=str)
def test_load_balancing_loss(router):
    logits = routers.logits()
    p = routers.softmax(logits)
    fraction = np.bincount(p.argmax(axis=1), minlength=3) / 8
    loss, gradient = jax.jit(jax.value_and_grad(lambda a: load_balancing_loss(router(routers.KEY, a))))(logits)
    np.testing.assert_allclose(loss, 3 * (fraction * p.mean(axis=0)).sum(), rtol=1e-5)
    # d p[i, j] / d a[i, l] = p[i, j] (1(j = l) - p[i, l]), with the fractions held constant.
    by_hand = 3 * p * (fraction - (p @ fraction)[:, None]) / 8
    np.testing.assert_allclose(gradient, by_hand, atol=1e-6)


def test_load_balancing_loss_is_one_when_balanced():
    logits = 3 * jnp.eye(4)[jnp.arange(12) % 4]
    np.testing.assert_allclose(load_balancing_loss(SwitchRouter(1)(routers.KEY, logits)), 1, rtol=1e-6)
