"""The enumerated objective: every expert on every datapoint."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._checks import check_logits


def exact_loss(logits: ArrayLike, all_losses: ArrayLike, *, mask: ArrayLike | None = None) -> Array:
    r"""The mean expected loss $\frac1n \sum_i \sum_j p_{ij} f_{ij}$ with $p_i = \mathrm{softmax}(a_i)$, by enumeration.

    Its gradient is what [`score_function_loss`][gumbel_moe.estimators.score_function_loss] estimates.

    **Arguments:**

    - `logits`: `(..., n, k)`; `-inf` forbids an expert for a datapoint, whose loss there is then ignored.
    - `all_losses`: `(..., n, k)`, the loss of every datapoint under every expert.
    - `mask`: `(..., n)` bool, false for datapoints that count nowhere, whatever their logits and losses hold.

    **Returns:** `(...)`, the mean over the datapoints that count; 0 if there are none.

    **Raises:** `ValueError` when the shapes differ or the logits have fewer than two axes, NaN or `+inf`; `TypeError`
    when the logits are not floating point.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.estimators import exact_loss
    >>> float(exact_loss(jnp.zeros((4, 2)), jnp.array([[1.0, 3.0]] * 4)))
    2.0

    ```
    """
    logits, present = check_logits(logits, mask)
    all_losses = as_array("all_losses", all_losses)
    if all_losses.shape != logits.shape:
        raise ValueError(f"all_losses must have the shape of logits, {logits.shape}, got {all_losses.shape}")
    return _mean(logits, all_losses, present)


@jax.jit
def _mean(logits: Array, all_losses: Array, present: Array | None) -> Array:
    counted = ~jnp.isneginf(logits)
    number = jnp.asarray(logits.shape[-2])
    if present is not None:
        counted, number = counted & present[..., None], jnp.sum(present, axis=-1)
    total = jnp.sum(jax.nn.softmax(logits, axis=-1) * jnp.where(counted, all_losses, 0), axis=(-2, -1))
    return total / jnp.maximum(number, 1).astype(total.dtype)
