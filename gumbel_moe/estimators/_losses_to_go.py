"""What a token's route is held responsible for: its own loss and later ones of its sequence."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array, is_traced
from gumbel_moe._varying import vary_like


def losses_to_go(losses: ArrayLike, discount: ArrayLike) -> Array:
    r"""$g_t = \sum_{s \ge t} \gamma^{s - t} f_s$: the loss of every token and, discounted, of those that come after it.

    **Arguments:**

    - `losses`: `(..., t)`, in the order of the sequence along the last axis.
    - `discount`: a scalar $\gamma$ from 0 (its own loss only) to 1 (all later ones in full).

    **Returns:** `(..., t)`, in the unit of the losses.

    **Raises:** `ValueError` for losses without an axis, or a discount that is no scalar from 0 to 1 (under `jit` its
    value is not looked at).

    ```python
    >>> from gumbel_moe.estimators import losses_to_go
    >>> losses_to_go([4.0, 2.0, 8.0], 0.5).tolist()
    [7.0, 6.0, 8.0]

    ```

    Reference: the reward-to-go of R. S. Sutton, A. G. Barto, *Reinforcement Learning* (2018), sections 3.3 and 13.3.
    """
    losses, gamma = as_array("losses", losses), as_array("discount", discount)
    if losses.ndim == 0:
        raise ValueError("losses must have shape (..., t), the tokens of a sequence along the last axis, got a scalar")
    if gamma.ndim or not (is_traced(gamma) or 0 <= float(gamma) <= 1):
        raise ValueError(f"discount must be a scalar from 0 to 1, got {discount!r}")
    gamma = gamma.astype(losses.dtype)

    def add(later: Array, loss: Array) -> tuple[Array, Array]:
        total = loss + gamma * later
        return total, total

    last_first = jnp.moveaxis(losses, -1, 0)
    nothing = vary_like((losses, gamma), jnp.zeros(losses.shape[:-1], losses.dtype))
    return jnp.moveaxis(jax.lax.scan(add, nothing, last_first, reverse=True)[1], 0, -1)
