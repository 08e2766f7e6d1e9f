"""Handwritten digits by eight small networks and a router that is a network."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from models._one_routed_layer import OneRoutedLayer
from models.data import NUM_CLASSES, NUM_PIXELS


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


class DigitsMixture(OneRoutedLayer):
    """`num_experts` networks of one size, their parameters stacked along a first axis; cross-entropy in nats.

    **Arguments:**

    - `key`: of the initial values, those of `equinox.nn.Linear`.
    - `num_experts`: 1 makes it a single network.
    - `width`, `router_width`: hidden units of an expert, and of the router. Experts are so small that one alone does
      badly: there is something to share out.

    ```python
    >>> import jax
    >>> from models.data import load_digits_split
    >>> from models.digits import DigitsMixture
    >>> data = load_digits_split(seed=0)
    >>> model = DigitsMixture(jax.random.key(1))
    >>> model.logits(data.test_x).shape, model.all_outputs(data.test_x).shape
    ((360, 8), (360, 8, 10))

    ```
    """

    def __init__(self, key: PRNGKeyArray, num_experts: int = 8, width: int = 4, router_width: int = 16) -> None:
        for_experts, for_router = jax.random.split(key)
        keys = jax.random.split(for_experts, num_experts)
        self.experts = eqx.filter_vmap(lambda key: Network(key, width, NUM_CLASSES))(keys)
        self.router_network = Network(for_router, router_width, num_experts)

    @property
    def num_inputs(self) -> int:
        """`d`."""
        return NUM_PIXELS

    @property
    def num_outputs(self) -> int:
        """Of an expert."""
        return NUM_CLASSES

    def losses(self, outputs: Float[Array, "n 10"], targets: Int[Array, " n"]) -> Float[Array, " n"]:
        """Cross-entropies in nats; the outputs are class logits."""
        # A sum over classes rather than an index: the gradient of indexing is a scatter, slow on a CPU.
        chosen = jax.nn.one_hot(targets, outputs.shape[1], dtype=outputs.dtype)
        return -jnp.sum(jax.nn.log_softmax(outputs, axis=1) * chosen, axis=1)
