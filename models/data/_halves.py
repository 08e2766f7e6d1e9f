"""The two halves of handwritten digits as a regression: three numbers for each image."""

from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Halves(NamedTuple):
    """Inputs and targets, each with mean 0 and variance 1 over the training part, and whose images they are."""

    train_x: Float[Array, "n 2"]
    train_y: Float[Array, " n"]
    test_x: Float[Array, "m 2"]
    test_y: Float[Array, " m"]
    train_images: Float[np.ndarray, "n 8 8"]


def load_halves(seed: int, num_train: int = 800) -> Halves:
    """Scikit-learn's 1797 digits, shuffled by `seed`; `num_train` of them to train on, the others to test.

    Inputs are the first two principal components of the upper four rows of pixels, the target is the first one of the
    lower four rows; components are those of the training images.
    """
    parts: Any = train_test_split(_images(), train_size=num_train, random_state=seed)
    train, test = parts
    columns = []
    for rows, number in ((slice(0, 4), 2), (slice(4, 8), 1)):
        known, new = (part[:, rows].reshape(len(part), -1) for part in (train, test))
        centre = known.mean(axis=0)
        components = np.linalg.svd(known - centre, full_matrices=False)[2][:number].T
        spread = ((known - centre) @ components).std(axis=0)
        columns.append([jnp.asarray((part - centre) @ components / spread, float) for part in (known, new)])
    (train_x, test_x), (train_y, test_y) = columns
    return Halves(train_x, train_y[:, 0], test_x, test_y[:, 0], train)


@cache  # reading the file takes longer than all the rest
def _images() -> Any:
    digits: Any = load_digits()
    return digits.images / 16
