"""The bent line, and the two lines that are to fit it."""

import jax
import jax.numpy as jnp
import numpy as np

from models.data import bent_line, bent_line_grid, sample_bent_line
from models.toy import ToyMixture


def test_target_by_hand():
    x = jnp.array([[0.0], [0.25], [0.5], [1.0]])
    np.testing.assert_allclose(bent_line(x)[:, 0], [-0.2, 0.0, 1.0, 0.0], atol=1e-6)


def test_batches_are_fresh_and_follow_the_key():
    x, y = sample_bent_line(jax.random.key(0), 100)
    again, _ = sample_bent_line(jax.random.key(0), 100)
    other, _ = sample_bent_line(jax.random.key(1), 100)
    assert x.shape == y.shape == (100, 1)
    assert jnp.array_equal(x, again)
    assert not jnp.any(x == other)
    assert ((x > 0) & (x < 1)).all()
    np.testing.assert_array_equal(y, bent_line(x))


def test_grid_integrates():
    x, y = bent_line_grid(1000)
    np.testing.assert_allclose(x.mean(), 0.5, rtol=1e-6)
    # The integral of the target: 0 over the first half, 1/4 over the second.
    np.testing.assert_allclose(y.mean(), 0.25, rtol=1e-3)


def test_router_and_lines_by_hand():
    model = ToyMixture(jax.random.key(0))
    x = jnp.array([[0.2], [0.7]])
    r0, r1 = np.asarray(model.router_network.weights)
    expected = 1 / (1 + np.exp(-(r0 * np.asarray(x[:, 0]) + r1)))
    np.testing.assert_allclose(jax.nn.softmax(model.logits(x), axis=1)[:, 1], expected, rtol=1e-5)
    lines = np.asarray(model.experts.slope) * np.asarray(x) + np.asarray(model.experts.intercept)
    np.testing.assert_allclose(model.all_outputs(x)[..., 0], lines, rtol=1e-5)
    np.testing.assert_allclose(model.all_losses(x, jnp.ones_like(x)), (lines - 1) ** 2, rtol=1e-4)


def test_starting_values_are_standard_normal():
    models = jax.vmap(ToyMixture)(jax.random.split(jax.random.key(0), 20_000))
    for leaf in jax.tree.leaves(models):
        # Means have standard error 1 / sqrt(20,000), standard deviations 1 / sqrt(40,000): six of them, at most one
        # failure in 2e7 over the twelve numbers.
        np.testing.assert_allclose(leaf.mean(axis=0), 0, atol=6 / np.sqrt(20_000))
        np.testing.assert_allclose(leaf.std(axis=0), 1, atol=6 / np.sqrt(40_000))
