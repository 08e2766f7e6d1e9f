"""BASE against SciPy's assignment on expanded columns."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gumbel_moe.routing import BaseRouter
from tests.routing import routers


@pytest.mark.each_choice
@pytest.mark.parametrize("capacity", [3, (2, 5, 1), (8, 1, 1), 8])
def test_equals_scipy(capacity, x64):
    for seed in range(3):
        check(routers.logits(seed=seed), capacity, 1e-12 if x64 else 1e-5)


def check(logits, capacity, tolerance):
    routing = BaseRouter(capacity)(routers.KEY, logits)
    expanded = np.repeat(np.arange(3), np.broadcast_to(capacity, 3))
    _, column = linear_sum_assignment(np.asarray(logits)[:, expanded], maximize=True)
    np.testing.assert_array_equal(routing.expert, expanded[column])
    own = np.asarray(logits, np.float64)[np.arange(8), expanded[column]]
    np.testing.assert_allclose(routing.gate, 1 / (1 + np.exp(-own)), rtol=tolerance)
    assert routing.kept.all()
    assert (routing.weight == 1).all()


def test_gate_follows_the_logit_not_the_probability():
    routing = BaseRouter(1)(routers.KEY, jnp.array([[7.0, 5.0], [9.0, 0.0]]))
    assert routing.expert.tolist() == [1, 0]
    np.testing.assert_allclose(routing.gate, 1 / (1 + np.exp([-5.0, -9.0])), rtol=1e-6)
