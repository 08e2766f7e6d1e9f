"""The enumeration of assignments."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, enumerate_assignments, outcome_probabilities


@pytest.mark.parametrize("capacity", [(2, 2), (1, 1, 1), (3, 2, 1), (1, 5), (4,)])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_all_assignments_once(n, capacity):
    every = np.array(np.meshgrid(*[np.arange(len(capacity))] * n, indexing="ij")).reshape(n, -1).T
    loads = (every[:, :, None] == np.arange(len(capacity))).sum(axis=1)
    np.testing.assert_array_equal(
        enumerate_assignments(n, capacity), every[(loads <= np.array(capacity)).all(axis=1)].reshape(-1, n)
    )


def test_number_of_balanced_ones_and_support():
    values = enumerate_assignments(6, 2, 3)
    assert len(values) == math.factorial(6) // 2**3
    assert values.dtype == jnp.int32
    assert GumbelMatching(jnp.zeros((6, 3)), 2).support(values).all()


def test_probabilities_follow_the_order():
    logits = jnp.array([[30.0, 0.0], [0.0, 0.0], [0.0, 30.0]])
    values = enumerate_assignments(3, (2, 1))
    assert values[jnp.argmax(outcome_probabilities(logits, (2, 1)))].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (1, 1)), "num_datapoints must be a positive int"),
        ((4, 2), "num_experts must be given"),
        ((4, (2, 2), 3), "capacity must be an int or"),
        ((4, (2, 0)), "capacity must be at least 1"),
        ((30, 30, 3), "more than 1000000 assignments"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        enumerate_assignments(*arguments)


def test_logits_must_be_one_matrix():
    with pytest.raises(ValueError, match="logits must have shape"):
        outcome_probabilities(jnp.zeros((2, 4, 2)), 2)
