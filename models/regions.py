"""Linear experts and a linear router for regions of a space: a problem that shows what estimators do."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models._one_routed_layer import OneRoutedLayer

_SCALE = 0.3  # of the initial weights: the router starts undecided


class RegionsMixture(OneRoutedLayer):
    """`num_experts` linear functions of `dimension` numbers and a linear router; squared error.

    **Arguments:** `key`, of the initial weights, normal(0, 0.3²); biases start at 0.

    ```python
    >>> import jax
    >>> from models.data import make_regions
    >>> from models.regions import RegionsMixture
    >>> x, y = make_regions(jax.random.key(0)).sample(jax.random.key(1), 5)
    >>> RegionsMixture(jax.random.key(2)).all_losses(x, y).shape
    (5, 8)

    ```
    """

    dimension: int = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, num_experts: int = 8, dimension: int = 8) -> None:
        for_experts, for_router = jax.random.split(key)
        keys = jax.random.split(for_experts, num_experts)
        self.experts = eqx.filter_vmap(lambda key: _linear(key, dimension, 1))(keys)
        self.dimension = dimension
        self.router_network = _linear(for_router, dimension, num_experts)

    @property
    def num_inputs(self) -> int:
        """`d`."""
        return self.dimension

    @property
    def num_outputs(self) -> int:
        """Of an expert."""
        return 1

    def losses(self, outputs: Float[Array, "n 1"], targets: Float[Array, "n 1"]) -> Float[Array, " n"]:
        """Squared errors."""
        return jnp.sum((outputs - targets) ** 2, axis=1)


def _linear(key: PRNGKeyArray, num_inputs: int, num_outputs: int) -> eqx.nn.Linear:
    layer = eqx.nn.Linear(num_inputs, num_outputs, key=key)
    weight = _SCALE * jax.random.normal(key, (num_outputs, num_inputs))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight, jnp.zeros(num_outputs)))
