r"""The bent line: $x \sim U(0, 1)$; $y = 0.8 x - 0.2$ for $x < 0.5$, else $y = -2 x + 2$.

Half of the data belongs to either half of it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def bent_line(x: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
    """The target at `x`, which jumps from 0.2 to 1 at 0.5."""
    return jnp.where(x < 0.5, 0.8 * x - 0.2, -2 * x + 2)


def sample_bent_line(key: PRNGKeyArray, n: int) -> tuple[Float[Array, "n 1"], Float[Array, "n 1"]]:
    """`n` fresh datapoints."""
    x = jax.random.uniform(key, (n, 1))
    return x, bent_line(x)


def bent_line_grid(n: int = 1000) -> tuple[Float[Array, "n 1"], Float[Array, "n 1"]]:
    """`n` evenly spaced datapoints, midpoints of equal cells of (0, 1): means over it are integrals over `x`."""
    x = ((jnp.arange(n) + 0.5) / n)[:, None]
    return x, bent_line(x)
