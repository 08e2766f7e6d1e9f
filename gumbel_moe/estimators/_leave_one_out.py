"""Baselines from other draws of the same batch."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array


def leave_one_out(weight: ArrayLike, losses: ArrayLike) -> Array:
    r"""For each of $m$ draws of one batch, the weighted mean loss of each datapoint over the other draws.

    $$b_{ri} = \frac{\sum_{s \ne r} w_{si} f_{si}}{\sum_{s \ne r} w_{si}}$$

    A datapoint that no other draw kept gets the mean over all datapoints instead. No entry depends on its own draw,
    which is what keeps the estimate of [`score_function_loss`][gumbel_moe.estimators.score_function_loss] unbiased;
    the draws must be independent, as `jax.vmap` over keys makes them.

    **Arguments:**

    - `weight`: `(m, n)`, of `m` routings of the same logits.
    - `losses`: `(m, n)`, the loss of every datapoint under its expert; ignored where the weight is 0.

    **Returns:** `(m, n)`; 0 for a single draw, which has no other.

    **Raises:** `ValueError` when the shapes differ or have not two axes.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import leave_one_out, score_function_loss
    >>> from gumbel_moe.routing import SkipRouter
    >>> all_losses = jnp.array([[1.0, 3.0], [0.0, 2.0], [2.0, 2.0], [5.0, 1.0]])
    >>> def loss(logits, keys):
    ...     routings = jax.vmap(SkipRouter(capacity=2), (0, None))(keys, logits)
    ...     losses = jax.vmap(lambda expert: all_losses[jnp.arange(4), expert])(routings.expert)
    ...     return jax.vmap(score_function_loss)(routings, losses, leave_one_out(routings.weight, losses)).mean()
    >>> jax.jit(jax.grad(loss))(jnp.zeros((4, 2)), jax.random.split(jax.random.key(0), 3)).shape
    (4, 2)

    ```

    Reference: W. Kool, H. van Hoof, M. Welling, *Buy 4 REINFORCE Samples, Get a Baseline for Free!* (2019).
    """
    weight, losses = as_array("weight", weight), as_array("losses", losses)
    if weight.ndim != 2 or weight.shape != losses.shape:
        raise ValueError(f"weight and losses must have the same shape (m, n), got {weight.shape} and {losses.shape}")
    return _leave_one_out(weight, jnp.where(weight == 0, 0, weight * losses))


@jax.jit
def _leave_one_out(weight: Array, weighted: Array) -> Array:
    def others(x: Array) -> Array:
        return jnp.sum(x, axis=0) - x

    def ratio(top: Array, bottom: Array, otherwise: Array) -> Array:
        return jnp.where(bottom > 0, top / jnp.where(bottom > 0, bottom, 1), otherwise)

    weight, weighted = others(weight), others(weighted)
    common = ratio(jnp.sum(weighted, axis=1), jnp.sum(weight, axis=1), jnp.zeros((), weight.dtype))
    return ratio(weighted, weight, common[:, None])
