"""Handwritten digits as rows of pixels: 1797 images of 8 x 8, scikit-learn's copy.

They are the test part of *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

NUM_PIXELS = 64
NUM_CLASSES = 10


class DigitsSplit(NamedTuple):
    """Images as rows of 64 pixels in [0, 1], and labels 0 to 9."""

    train_x: Float[Array, "n 64"]
    train_y: Int[Array, " n"]
    test_x: Float[Array, "m 64"]
    test_y: Int[Array, " m"]


def load_digits_split(seed: int) -> DigitsSplit:
    """Four fifths of the images to train on, one fifth to test, equal shares of every digit; shuffled by `seed`."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    return DigitsSplit(
        jnp.asarray(train_x, float), jnp.asarray(train_y, int), jnp.asarray(test_x, float), jnp.asarray(test_y, int)
    )
