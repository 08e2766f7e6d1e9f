"""The handwritten digits and their split, and the small networks."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from models.data import load_digits_split
from models.digits import DigitsMixture


def test_split_covers_all_images_once():
    split = load_digits_split(seed=4)
    assert split.train_x.shape == (1437, 64)
    assert split.test_x.shape == (360, 64)
    images, labels = load_digits(return_X_y=True)

    def in_order(x, y):
        table = np.column_stack([np.round(np.asarray(x) * 16), np.asarray(y)])
        return table[np.lexsort(table.T)]

    ours = in_order(jnp.concatenate([split.train_x, split.test_x]), jnp.concatenate([split.train_y, split.test_y]))
    np.testing.assert_array_equal(ours, in_order(images / 16, labels))


def test_split_follows_the_seed():
    first, again, other = load_digits_split(0), load_digits_split(0), load_digits_split(1)
    assert jnp.array_equal(first.test_x, again.test_x)
    assert not jnp.array_equal(first.test_x, other.test_x)


def test_every_digit_has_its_share_of_the_test_images():
    split = load_digits_split(0)
    counts = np.bincount(split.test_y, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_experts_differ_and_one_by_hand():
    model = jax.jit(lambda key: DigitsMixture(key, num_experts=3, width=5))(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (4, 64))
    outputs = np.asarray(model.all_outputs(x))
    hidden = model.experts.hidden
    for j in range(3):
        w1, b1 = np.asarray(hidden.weight[j]), np.asarray(hidden.bias[j])
        w2, b2 = np.asarray(model.experts.out.weight[j]), np.asarray(model.experts.out.bias[j])
        expected = np.maximum(np.asarray(x) @ w1.T + b1, 0) @ w2.T + b2
        np.testing.assert_allclose(outputs[:, j], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs[:, 0], outputs[:, 1])


def test_cross_entropy_by_hand():
    model = jax.jit(lambda key: DigitsMixture(key, num_experts=1))(jax.random.key(0))
    outputs = jnp.zeros((2, 10)).at[1, 3].set(2.0)
    losses = model.losses(outputs, jnp.array([0, 3]))
    np.testing.assert_allclose(losses, [np.log(10), np.log(9 + np.exp(2.0)) - 2], rtol=1e-5)
