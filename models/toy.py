r"""Two linear experts for a bent line: the smallest problem on which routers differ.

$x \sim U(0, 1)$; $y = 0.8 x - 0.2$ for $x < 0.5$, else $y = -2 x + 2$. Each half is one expert's work, half of the data
belongs to either, and the router $\sigma(r_0 x + r_1)$ can separate them. It is solved when it does and both lines fit.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models._mixture import Mixture


def target(x: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
    """The bent line, which jumps from 0.2 to 1 at 0.5."""
    return jnp.where(x < 0.5, 0.8 * x - 0.2, -2 * x + 2)


def sample_batch(key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n 1"], Float[Array, "n 1"]]:
    """`n` fresh datapoints: `x` uniform on (0, 1), and `y` without noise."""
    x = jax.random.uniform(key, (n, 1))
    return x, target(x)


def grid(n: int = 1000) -> tuple[Float[Array, "n 1"], Float[Array, "n 1"]]:
    """`n` evenly spaced datapoints, midpoints of equal cells of (0, 1): means over it are integrals over `x`."""
    x = ((jnp.arange(n) + 0.5) / n)[:, None]
    return x, target(x)


class ToyMixture(Mixture):
    r"""Two lines and a logistic router; squared error.

    The logits are $\mp (r_0 x + r_1) / 2$, whose softmax gives expert 1 the probability $\sigma(r_0 x + r_1)$. They are
    symmetric because some routers gate by the sigmoid of one logit, which should treat both experts alike.

    **Arguments:** `key`; every parameter starts at a draw from normal(0, 1).

    ```python
    >>> import jax
    >>> from models.toy import ToyMixture, sample_batch
    >>> x, y = sample_batch(jax.random.key(0), 5)
    >>> model = ToyMixture(jax.random.key(1))
    >>> model.logits(x).shape, model.all_outputs(x).shape, model.all_losses(x, y).shape
    ((5, 2), (5, 2, 1), (5, 2))

    ```
    """

    slope: Float[Array, " 2"]
    intercept: Float[Array, " 2"]
    router: Float[Array, " 2"]

    def __init__(self, key: PRNGKeyArray) -> None:
        self.slope, self.intercept, self.router = jax.random.normal(key, (3, 2))

    @property
    def num_experts(self) -> int:
        """Two."""
        return 2

    def logits(self, x: Float[Array, "n 1"]) -> Float[Array, "n 2"]:
        """The router's unnormalised log-probabilities."""
        half = (self.router[0] * x + self.router[1]) / 2
        return jnp.concatenate([-half, half], axis=1)

    def expert_outputs(self, buffers: Float[Array, "2 places 1"]) -> Float[Array, "2 places 1"]:
        """Each line on its own buffer."""
        return self.slope[:, None, None] * buffers + self.intercept[:, None, None]

    def losses(self, outputs: Float[Array, "n 1"], targets: Float[Array, "n 1"]) -> Float[Array, " n"]:
        """Squared errors."""
        return jnp.sum((outputs - targets) ** 2, axis=1)
