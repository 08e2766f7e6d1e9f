r"""Regions: $x \sim N(0, I_d)$, and the one of several linear functions of it whose direction it points along most.

The experts of a mixture that finds the regions are exact. Batches are fresh, so that nothing can be over-fitted: what
is measured is how well a gradient estimator trains.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Regions(NamedTuple):
    """The teacher: directions that split the space, and a linear function in each part."""

    directions: Float[Array, "d regions"]
    slopes: Float[Array, "regions d"]
    intercepts: Float[Array, " regions"]

    def targets(self, x: Float[Array, "n d"]) -> Float[Array, "n 1"]:
        """The linear function of the region that each `x` lies in."""
        region = jnp.argmax(x @ self.directions, axis=1)
        return (jnp.sum(x * self.slopes[region], axis=1) + self.intercepts[region])[:, None]

    def sample(self, key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n d"], Float[Array, "n 1"]]:
        """`n` fresh datapoints."""
        x = jax.random.normal(key, (n, self.directions.shape[0]))
        return x, self.targets(x)


def make_regions(key: PRNGKeyArray, dimension: int = 8, regions: int = 8) -> Regions:
    """A teacher whose numbers are drawn from normal(0, 1)."""
    for_directions, for_slopes, for_intercepts = jax.random.split(key, 3)
    return Regions(
        jax.random.normal(for_directions, (dimension, regions)),
        jax.random.normal(for_slopes, (regions, dimension)),
        jax.random.normal(for_intercepts, (regions,)),
    )
