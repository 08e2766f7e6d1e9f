"""Batching, tracing and differentiation of the matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import exchange_distances, solve_matching
from tests.matching import problems

pytestmark = pytest.mark.usefixtures("solver")


@pytest.fixture(scope="module")
def batch():
    """Problems of very different difficulty side by side: the loops of one must not disturb the others."""
    families = ["normal", "ties", "constant", "one_preferred", "clustered", "heavy"]
    return jnp.asarray(np.stack([problems.scores(f, 18, 4, 0) for f in families]).reshape(2, 3, 18, 4), jnp.float32)


@pytest.mark.parametrize("capacity", [5, (6, 4, 5, 3), pytest.param((18, 1, 1, 1), marks=pytest.mark.slow)])
def test_leading_axes_equal_single_problems(batch, capacity):
    match = solve_matching(batch, capacity)
    distances = exchange_distances(batch, match.assignment, capacity)
    assert match.assignment.shape == (2, 3, 18)
    assert match.prices.shape == (2, 3, 4)
    assert match.value.shape == match.gap.shape == match.steps.shape == (2, 3)
    assert distances.shape == (2, 3, 4, 4)
    for index in np.ndindex(2, 3):
        single = solve_matching(batch[index], capacity)
        np.testing.assert_allclose(match.value[index], single.value, rtol=1e-6)
        np.testing.assert_allclose(match.gap[index], single.gap, atol=1e-4)


def test_jit_and_vmap_agree(batch):
    flat = batch.reshape(6, 18, 4)
    expected = solve_matching(batch, 5).assignment.reshape(6, 18)
    np.testing.assert_array_equal(jax.jit(lambda s: solve_matching(s, 5).assignment)(flat), expected)
    np.testing.assert_array_equal(jax.vmap(lambda s: solve_matching(s, 5).assignment)(flat), expected)


def test_vmap_over_capacity(batch):
    capacity = jnp.array([[5, 5, 5, 5], [6, 4, 5, 3], [1, 1, 1, 18]])
    values = jax.vmap(lambda c: solve_matching(batch[0, 0], c).value)(capacity)
    expected = [problems.best_value(batch[0, 0], c) for c in np.asarray(capacity)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint32, jnp.int64])
def test_traced_capacities_of_any_width(dtype):
    with jax.enable_x64(True):
        s = jnp.asarray(problems.scores("normal", 20, 3, 0))
        capacity = jnp.array([jnp.iinfo(dtype).max, 1, 1], dtype)
        value = jax.jit(solve_matching)(s, capacity).value
        np.testing.assert_allclose(value, problems.best_value(s, [20, 1, 1]), rtol=1e-9)


def test_no_gradient_flows(batch):
    gradient = jax.grad(lambda s: solve_matching(s, 5).value)(batch[0, 0])
    assert (gradient == 0).all()


def test_deterministic(batch):
    first, second = solve_matching(batch, 5), solve_matching(batch, 5)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_other_dtypes_are_widened(dtype):
    s = jnp.asarray(problems.scores("ties", 12, 3, 0)).astype(dtype)
    match = solve_matching(s, 4)
    assert match.value.dtype == jnp.float32
    assert match.value == problems.best_value(np.asarray(s, float), [4, 4, 4])
