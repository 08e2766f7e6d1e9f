"""The enumerated objective: every expert on every datapoint."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_matrix


def exact_loss(logits: ArrayLike, all_losses: ArrayLike) -> Array:
    r"""The mean expected loss $\frac1n \sum_i \sum_j p_{ij} f_{ij}$ with $p_i = \mathrm{softmax}(a_i)$, by enumeration.

    Its gradient is what [`score_function_loss`][gumbel_moe.estimators.score_function_loss] estimates.

    **Arguments:**

    - `logits`: `(..., n, k)`; `-inf` forbids an expert for a datapoint, whose loss there is then ignored.
    - `all_losses`: `(..., n, k)`, the loss of every datapoint under every expert.

    **Returns:** `(...)`, the mean over datapoints; 0 if there are none.

    **Raises:** `ValueError` when the shapes differ or the logits have fewer than two axes, NaN or `+inf`; `TypeError`
    when the logits are not floating point.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.estimators import exact_loss
    >>> float(exact_loss(jnp.zeros((4, 2)), jnp.array([[1.0, 3.0]] * 4)))
    2.0

    ```
    """
    logits = check_matrix("logits", logits)
    all_losses = jnp.asarray(all_losses)
    if all_losses.shape != logits.shape:
        raise ValueError(f"all_losses must have the shape of logits, {logits.shape}, got {all_losses.shape}")
    possible = jnp.where(jnp.isneginf(logits), 0, all_losses)
    total = jnp.sum(jax.nn.softmax(logits, axis=-1) * possible, axis=(-2, -1))
    return total / max(logits.shape[-2], 1)
