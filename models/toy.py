r"""Two linear experts for a bent line: the smallest problem on which routers differ.

Each half of the line is one expert's work, and the router $\sigma(r_0 x + r_1)$ can separate them. The problem is
solved when it does and both lines fit.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models._one_routed_layer import OneRoutedLayer


class Line(eqx.Module):
    """An intercept and a slope."""

    slope: Array
    intercept: Array

    def __call__(self, x: Float[Array, " 1"]) -> Float[Array, " 1"]:
        """The line at one `x`."""
        return self.slope * x + self.intercept


class LogisticRouter(eqx.Module):
    r"""The logits $\mp (r_0 x + r_1) / 2$, whose softmax gives expert 1 the probability $\sigma(r_0 x + r_1)$.

    They are symmetric because some routers gate by the sigmoid of one logit, which should treat both experts alike.
    """

    weights: Array

    def __call__(self, x: Float[Array, " 1"]) -> Float[Array, " 2"]:
        """Two logits at one `x`."""
        half = (self.weights[0] * x + self.weights[1]) / 2
        return jnp.concatenate([-half, half])


class ToyMixture(OneRoutedLayer):
    r"""Two lines and a logistic router; squared error.

    **Arguments:** `key`; every parameter starts at a draw from normal(0, 1).

    ```python
    >>> import jax
    >>> from models.data import sample_bent_line
    >>> from models.toy import ToyMixture
    >>> x, y = sample_bent_line(jax.random.key(0), 5)
    >>> model = ToyMixture(jax.random.key(1))
    >>> model.logits(x).shape, model.all_outputs(x).shape, model.all_losses(x, y).shape
    ((5, 2), (5, 2, 1), (5, 2))

    ```
    """

    def __init__(self, key: PRNGKeyArray) -> None:
        slope, intercept, weights = jax.random.normal(key, (3, 2))
        self.experts = Line(slope, intercept)
        self.router_network = LogisticRouter(weights)

    @property
    def num_inputs(self) -> int:
        """`d`."""
        return 1

    @property
    def num_outputs(self) -> int:
        """Of an expert."""
        return 1

    def losses(self, outputs: Float[Array, "n 1"], targets: Float[Array, "n 1"]) -> Float[Array, " n"]:
        """Squared errors."""
        return jnp.sum((outputs - targets) ** 2, axis=1)
