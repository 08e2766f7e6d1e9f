"""178 wines of one region of Italy, of three cultivars: scikit-learn's `load_wine`."""

from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.datasets import load_wine
from sklearn.utils import Bunch

RESPONSES = ("flavanoids", "color_intensity", "proline")


class Wines(NamedTuple):
    """Labelled wines, and others of which only the number in each group is known to a model."""

    labelled_x: Float[Array, " m"]
    labelled_y: Float[Array, "m d"]
    label: Int[Array, " m"]
    x: Float[Array, " n"]
    y: Float[Array, "n d"]
    sizes: tuple[int, ...]  # (k,) of the n others
    truth: Int[np.ndarray, " n"]  # which no model sees


def load_wines(seed: int, labelled: int = 8, every: int = 1) -> Wines:
    """The wines, `labelled` of each cultivar drawn by `seed`; of the others, one in `every`, for smaller problems."""
    bunch = cast(Bunch, load_wine())
    table = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    column = bunch.feature_names.index
    x, y = table[:, column("total_phenols")], table[:, [column(name) for name in RESPONSES]]
    shuffled = np.random.default_rng(seed).permutation(len(x))
    cultivar = bunch.target[shuffled]
    known = np.concatenate([shuffled[cultivar == group][:labelled] for group in range(3)])
    others = np.setdiff1d(np.arange(len(x)), known)[::every]
    truth = bunch.target[others]
    sizes = tuple(int(size) for size in np.bincount(truth, minlength=3))
    measured = (jnp.asarray(part, jnp.float32) for part in (x[known], y[known], x[others], y[others]))
    labelled_x, labelled_y, x, y = measured
    return Wines(labelled_x, labelled_y, jnp.asarray(bunch.target[known], jnp.int32), x, y, sizes, truth)
