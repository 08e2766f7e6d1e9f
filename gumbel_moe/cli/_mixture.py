"""A mixture of random linear experts, small enough that its gradient is known by enumeration."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe.estimators import exact_loss

FEATURES = 8


class RandomMixture(NamedTuple):
    """Squared errors of `k` linear experts on `n` datapoints, and a linear router, or logits as they are."""

    params: dict[str, Any]
    x: Array
    """`(n, FEATURES)`."""
    y: Array
    """`(n,)`."""

    def logits(self, params: dict[str, Any]) -> Array:
        """`(n, k)`."""
        if "logits" in params:
            return params["logits"]
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
    return _with_experts({"router": {"weight": ratio * weight, "bias": ratio * bias}}, x, k, random, np.float32)


def mixture_of(logits: np.ndarray, seed: int) -> RandomMixture:
    """Random experts for given logits `(n, k)`, which are parameters themselves, in their precision."""
    random = np.random.default_rng(seed)
    n, k = logits.shape
    return _with_experts({"logits": logits}, random.standard_normal((n, FEATURES)), k, random, logits.dtype)


def _with_experts(
    params: dict[str, Any], x: np.ndarray, k: int, random: np.random.Generator, dtype: Any
) -> RandomMixture:
    experts = {
        "weight": random.standard_normal((FEATURES, k)) / np.sqrt(FEATURES),
        "bias": random.standard_normal(k) / 3,
    }
    numbers = {**params, "experts": experts}, x, random.standard_normal(len(x))
    return RandomMixture(*jax.tree.map(lambda values: jnp.asarray(values, dtype), numbers))
