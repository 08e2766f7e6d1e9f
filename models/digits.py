"""Handwritten digits by eight small networks and a router that is a network: real data, no download.

The data are scikit-learn's copy of the test part of *Optical Recognition of Handwritten Digits* (E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998): 1797 images of 8 x 8 pixels.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from models._mixture import Mixture

NUM_PIXELS = 64
NUM_CLASSES = 10


class Split(NamedTuple):
    """Images as rows of 64 pixels in [0, 1], and labels 0 to 9."""

    train_x: Float[Array, "n 64"]
    train_y: Int[Array, " n"]
    test_x: Float[Array, "m 64"]
    test_y: Int[Array, " m"]


def load_split(seed: int) -> Split:
    """Four fifths of the images to train on, one fifth to test, equal shares of every digit; shuffled by `seed`."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images / 16, labels, test_size=0.2, random_state=seed, stratify=labels
    )
    return Split(
        jnp.asarray(train_x, float), jnp.asarray(train_y, int), jnp.asarray(test_x, float), jnp.asarray(test_y, int)
    )


class Network(eqx.Module):
    """One hidden layer of rectified linear units."""

    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, width: int, num_outputs: int) -> None:
        first, second = jax.random.split(key)
        self.hidden = eqx.nn.Linear(NUM_PIXELS, width, key=first)
        self.out = eqx.nn.Linear(width, num_outputs, key=second)

    def __call__(self, pixels: Float[Array, " 64"]) -> Float[Array, " out"]:
        """Outputs for one image."""
        return self.out(jax.nn.relu(self.hidden(pixels)))


class DigitsMixture(Mixture):
    """`num_experts` networks of one size, their parameters stacked along a first axis; cross-entropy in nats.

    **Arguments:**

    - `key`: of the initial values, those of `equinox.nn.Linear`.
    - `num_experts`: 1 makes it a single network.
    - `width`, `router_width`: hidden units of an expert, and of the router. Experts are so small that one alone does
      badly: there is something to share out.

    ```python
    >>> import jax
    >>> from models.digits import DigitsMixture, load_split
    >>> data = load_split(seed=0)
    >>> model = DigitsMixture(jax.random.key(1))
    >>> model.logits(data.test_x).shape, model.all_outputs(data.test_x).shape
    ((360, 8), (360, 8, 10))

    ```
    """

    experts: Network
    router: Network

    def __init__(self, key: PRNGKeyArray, num_experts: int = 8, width: int = 4, router_width: int = 16) -> None:
        for_experts, for_router = jax.random.split(key)
        keys = jax.random.split(for_experts, num_experts)
        self.experts = eqx.filter_vmap(lambda key: Network(key, width, NUM_CLASSES))(keys)
        self.router = Network(for_router, router_width, num_experts)

    @property
    def num_experts(self) -> int:
        """`k`."""
        return self.experts.hidden.weight.shape[0]

    def logits(self, x: Float[Array, "n 64"]) -> Float[Array, "n k"]:
        """The router's unnormalised log-probabilities."""
        return jax.vmap(self.router)(x)

    def expert_outputs(self, buffers: Float[Array, "k places 64"]) -> Float[Array, "k places 10"]:
        """Class logits of each expert on its own buffer."""
        return eqx.filter_vmap(lambda expert, images: jax.vmap(expert)(images))(self.experts, buffers)

    def losses(self, outputs: Float[Array, "n 10"], targets: Int[Array, " n"]) -> Float[Array, " n"]:
        """Cross-entropies in nats; the outputs are class logits."""
        # A sum over classes rather than an index: the gradient of indexing is a scatter, slow on a CPU.
        chosen = jax.nn.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        return -jnp.sum(jax.nn.log_softmax(outputs, axis=1) * chosen, axis=1)
