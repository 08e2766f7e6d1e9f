"""The output of all experts, mixed by their probabilities, from the experts that were drawn."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe.routing._record import Routing


def mixture_output(routing: Routing, outputs: ArrayLike) -> Array:
    r"""An unbiased estimate of the dense mixture's output $\sum_j p_{ij} h_j(x_i)$, from the experts $S_i$ drawn.

    $$\hat h_i = \sum_{j \in S_i} w_{ij} \, h_j(x_i) ,$$

    the sum of the outputs by importance weight, in which $p$ is differentiable and $w / p$ is a constant: the gradient
    in the logits is an unbiased estimate as well, without a score function. For $m = k$ experts of a datapoint both are
    exact, where none of them skips it. The weights of an independent draw without a floor sum to 1 (of up to eight
    experts), so that its estimate is a mixture of outputs itself.

    What is unbiased is the output, its gradient, and whatever is linear in them. **A loss of the output is not,**
    unless it is linear: $E[\ell(\hat h)] \ne \ell(E[\hat h])$, by about half of $\ell''$ times the variance of the
    estimate, which falls with $m$. The objective $\sum_j p_{ij} f_{ij}$ of
    [`score_function_loss`][gumbel_moe.estimators.score_function_loss], where each expert has a loss of its own, is
    another one, and unbiased for every $m$.

    **Arguments:**

    - `routing`: a [`Routing`][gumbel_moe.routing.Routing] of a weighted router, of several experts per datapoint or
      one.
    - `outputs`: `(n, m, ...)`, or `(n, ...)` for one expert: those of every datapoint's experts, as
      [`combine(..., each=True)`][gumbel_moe.routing.combine] gives them; differentiable. Rows of experts that do not
      keep a datapoint are ignored, whatever they hold. `combine(..., weighted=True)` does both at once.

    **Returns:** `(n, ...)`; 0 for a datapoint that no expert keeps.

    **Raises:** `TypeError` when `routing` is no `Routing`, or `outputs` are not floating point; `ValueError` when
    `outputs` have another shape.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import IndependentRouter, mixture_output
    >>> h = jnp.array([1.0, 2.0, 6.0])  # of three experts, for every datapoint
    >>> routing = IndependentRouter(experts_per_datapoint=3)(jax.random.key(0), jnp.zeros((2, 3)))
    >>> mixture_output(routing, h[routing.expert]).round(4).tolist()  # all three: nothing is left to chance
    [3.0, 3.0]

    ```
    """
    if not isinstance(routing, Routing):
        raise TypeError(f"routing must be a Routing, got {type(routing).__name__}")
    outputs = as_array("outputs", outputs)
    shape = routing.expert.shape
    if outputs.shape[: len(shape)] != shape:
        raise ValueError(
            f"outputs must have shape {(*shape, ...)}, one for every expert of routing, got {outputs.shape}"
        )
    if not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(f"outputs must be floating point, got dtype {outputs.dtype}")
    trailing = (1,) * (outputs.ndim - len(shape))
    factor = carrying_p(routing).astype(outputs.dtype).reshape(*shape, *trailing)
    rows = factor * jnp.where(routing.kept.reshape(*shape, *trailing), outputs, 0)
    return rows if routing.experts_per_datapoint is None else jnp.sum(rows, axis=routing.log_probs.ndim - 1)


def carrying_p(routing: Routing) -> Array:
    """The weights, through which the gradient of `p` flows: `w = p * (w / p)` with a constant `w / p`."""
    weight = jax.lax.stop_gradient(routing.weight)
    return weight * jnp.exp(routing.log_prob - jax.lax.stop_gradient(routing.log_prob))
