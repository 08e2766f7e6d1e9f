"""The score-function (REINFORCE) estimator for weighted draws."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._experts import at_expert
from gumbel_moe.routing import Routing


def score_function_loss(routing: Routing, losses: ArrayLike, baseline: ArrayLike | None = None) -> Array:
    r"""A scalar whose value estimates the mean loss and whose gradient estimates its gradient, both without bias.

    The objective is the mean of the expected losses, with no capacity in it, over the datapoints that take part:
    $J = \frac1n \sum_i \sum_j p_{ij} f_{ij}$. For a draw with $E[w_i 1(z_i = j)] = p_{ij}$, the value is
    $\frac1n \sum_i w_i f_{i z_i}$ and the gradient is

    $$\frac1n \sum_i w_i \left( \nabla f_{i z_i} + (f_{i z_i} - b_i) \nabla \log p_{i z_i} \right),$$

    an unbiased estimate of $\nabla J$ with respect to the parameters of the experts and of the router alike. Each
    datapoint is seen by the one expert that handles it.

    **Arguments:**

    - `routing`: a [`Routing`][gumbel_moe.routing.Routing] of one of the weighted routers (independent, skip,
      Gumbel-Matching). With any other router the result is that router's own loss with a score-function term, biased.
    - `losses`: `(n,)`, the loss of every datapoint under its expert, differentiable. Entries of datapoints that were
      skipped or left out are ignored, whatever they hold.
    - `baseline`: what to subtract from the losses in the score term, treated as a constant; it must not depend on the
      draw that made `routing`. A scalar or `(n,)`: one value per datapoint. `(n, k)`: one per datapoint and expert;
      then $b_{i z_i}$ is subtracted and $\sum_j b_{ij} \nabla p_{ij}$ added, so that the estimate stays unbiased.
      None: 0.

    **Returns:** a scalar, of the dtype of the losses and weights; 0 if there are no datapoints.

    **Raises:** `TypeError` when `routing` is no `Routing` (expert choice gives a datapoint several experts or none);
    `ValueError` when `losses` or `baseline` has another shape.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import score_function_loss
    >>> from gumbel_moe.routing import SkipRouter
    >>> def loss(logits, key):
    ...     routing = SkipRouter(capacity=2)(key, logits)
    ...     losses = jnp.array([1.0, 3.0])[routing.expert]
    ...     return score_function_loss(routing, losses, baseline=2.0)
    >>> gradient = jax.grad(loss)(jnp.zeros((4, 2)), jax.random.key(0))
    >>> bool((gradient[:, 0] <= 0).all())  # expert 0 has the lower loss
    True

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, arXiv 2109.11817 (2021); for the score-function estimator,
    R. J. Williams, *Simple statistical gradient-following algorithms*, Machine Learning 8 (1992).
    """
    if not isinstance(routing, Routing):
        raise TypeError(f"routing must be a Routing with one expert per datapoint, got {type(routing).__name__}")
    n, k = routing.log_probs.shape[-2:]
    losses = as_array("losses", losses)
    if losses.shape != (n,):
        raise ValueError(f"losses must have shape ({n},), one per datapoint, got {losses.shape}")
    baseline = jnp.zeros((), losses.dtype) if baseline is None else as_array("baseline", baseline)
    if baseline.shape not in ((), (n,), (n, k)):
        raise ValueError(f"baseline must be a scalar or have shape ({n},) or ({n}, {k}), got {baseline.shape}")

    stop = jax.lax.stop_gradient
    losses = jnp.where(routing.kept, losses, 0)
    weight, baseline = stop(routing.weight), stop(baseline)
    if baseline.ndim == 2:
        baseline = jnp.where(routing.mask[:, None], baseline, 0)
        subtracted = at_expert(baseline, routing.expert)
        added = jnp.sum(baseline * gradient_only(jnp.exp(routing.log_probs)), axis=1)
    else:
        subtracted, added = jnp.where(routing.mask, baseline, 0), 0.0
    score = stop(weight * (losses - subtracted)) * gradient_only(routing.log_prob)
    return jnp.sum(weight * losses + score + added) / jnp.maximum(jnp.sum(routing.mask), 1).astype(losses.dtype)


def gradient_only(x: Array) -> Array:
    """Zero, with the gradient of `x`; also where `x` is `-inf`."""
    return jnp.where(jnp.isneginf(x), 0, x - jax.lax.stop_gradient(x))
