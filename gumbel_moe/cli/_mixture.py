"""A random mixture of linear experts, small enough that its gradient is known by enumeration."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe.estimators import exact_loss

FEATURES = 8


class RandomMixture(NamedTuple):
    """Squared errors of `k` linear experts on `n` datapoints, and a linear router."""

    params: dict[str, Any]
    x: Array
    """`(n, FEATURES)`."""
    y: Array
    """`(n,)`."""

    def logits(self, params: dict[str, Any]) -> Array:
        """`(n, k)`."""
        return self.x @ params["router"]["weight"] + params["router"]["bias"]

    def outputs(self, params: dict[str, Any]) -> Array:
        """`(n, k)`: of every expert."""
        return self.x @ params["experts"]["weight"] + params["experts"]["bias"]

    def all_losses(self, params: dict[str, Any]) -> Array:
        """`(n, k)`: squared errors of every expert."""
        return (self.outputs(params) - self.y[:, None]) ** 2

    def exact(self) -> dict[str, Any]:
        """The gradient of the mean expected loss, every expert on every datapoint."""
        return jax.grad(lambda params: exact_loss(self.logits(params), self.all_losses(params)))(self.params)


def random_mixture(n: int, k: int, scale: float, seed: int) -> RandomMixture:
    """Normal data and parameters; the logits get exactly the standard deviation `scale`."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, FEATURES))
    weight, bias = random.standard_normal((FEATURES, k)), random.standard_normal(k) / 3
    spread = np.std(x @ weight + bias)
    ratio = scale / spread if spread > 0 else 0.0
    numbers = {
        "router": {"weight": ratio * weight, "bias": ratio * bias},
        "experts": {
            "weight": random.standard_normal((FEATURES, k)) / np.sqrt(FEATURES),
            "bias": random.standard_normal(k) / 3,
        },
    }
    y = random.standard_normal(n)
    params, x, y = jax.tree.map(lambda values: jnp.asarray(values, jnp.float32), (numbers, x, y))
    return RandomMixture(params, x, y)
