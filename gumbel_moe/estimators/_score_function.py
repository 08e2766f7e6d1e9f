"""The score-function (REINFORCE) estimator for weighted draws."""

from collections.abc import Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._experts import at_expert
from gumbel_moe.estimators._gradient_only import gradient_only
from gumbel_moe.estimators._several_experts import several_experts_terms
from gumbel_moe.routing import Routing

Routings = Routing | Sequence[Routing]
"""Of one layer, or of each layer of a stack."""


def score_function_loss(
    routing: Routings, losses: ArrayLike, baseline: ArrayLike | None = None, *, pairs: bool = False
) -> Array:
    r"""A scalar whose value estimates the mean loss and whose gradient estimates its gradient, both without bias.

    The objective is the mean of the expected losses, with no capacity in it, over the datapoints that take part:
    $J = \frac1n \sum_i \sum_j p_{ij} f_{ij}$. For a draw with $E[w_i 1(z_i = j)] = p_{ij}$, the value is
    $\frac1n \sum_i w_i f_{i z_i}$ and the gradient is

    $$\frac1n \sum_i w_i \left( \nabla f_{i z_i} + (f_{i z_i} - b_i) \nabla \log p_{i z_i} \right),$$

    an unbiased estimate of $\nabla J$ with respect to the parameters of the experts and of the router alike. Each
    datapoint is seen by the one expert that handles it.

    Of $m$ experts $S_i$ per datapoint each has a loss of its own, and the objective is the same: the value is
    $\frac1n \sum_i \sum_{j \in S_i} w_{ij} f_{ij}$, and the gradient

    $$\frac1n \sum_i \sum_{j \in S_i} w_{ij} \left( \nabla f_{ij} + (f_{ij} - b_i) \nabla \log p_{ij} \right).$$

    With more experts it has less noise from the draws, and none for $m = k$ where nobody is skipped.

    **Arguments:**

    - `routing`: a [`Routing`][gumbel_moe.routing.Routing] of one of the weighted routers (independent, skip,
      Gumbel-Matching). With any other router the result is that router's own loss with a score-function term, biased.
      Of a stack of layers that every datapoint passes: the sequence of the layers' routings, all of them. The weight
      is then the product of the layers' weights, the score the sum of their scores, and the objective the mean over
      the experts of all layers; a datapoint counts where every layer kept it. The last layer's routing alone, or the
      mean of two layers' losses, would be biased. Layers of a stack have one expert per datapoint: of several, the next
      layer would see a mixture of their outputs, in which the loss is not linear, and no weights make up for that.
    - `losses`: `(n,)`, the loss of every datapoint under its expert (in a stack: its experts), differentiable; `(n, m)`
      for $m$ experts per datapoint, the loss under each of them by itself. It may depend on the datapoint's own experts
      alone: where attention or a batch's statistics mix datapoints, the weights no longer stand for what they should.
      Entries of datapoints that were skipped or left out are ignored, whatever they hold.
    - `baseline`: what to subtract from the losses in the score term, treated as a constant; it must not depend on the
      draw that made `routing`. A scalar or `(n,)`: one value per datapoint. `(n, k)`: one per datapoint and expert;
      then $b_{i z_i}$ is subtracted and $\sum_j b_{ij} \nabla p_{ij}$ added, so that the estimate stays unbiased (not
      for a stack). None: 0.
    - `pairs`: compare a datapoint's $m \ge 2$ experts with each other instead: the score term is then
      $\sum_{j \ne l \in S_i} W_{ijl} (f_{ij} - f_{il}) \nabla \log p_{ij}$ with the weights of pairs of the routing, in
      which a scalar baseline or one `(n,)` cancels, and one `(n, k)` is subtracted first. It is unbiased too, since
      $E[W_{ijl} 1(j, l \in S_i)] = p_{ij} p_{il}$ (for Gumbel-Matching where all pairs of experts are feasible). On the
      regions, for independent draws, it was ahead of no baseline, and from three experts on of a running mean; but a
      baseline of each datapoint's own was ahead of it, and for other routers any was, hence the default (page *Which
      estimator*).

    **Returns:** a scalar, of the dtype of the losses and weights; 0 if there are no datapoints.

    **Raises:** `TypeError` when `routing` is no `Routing` (expert choice gives a datapoint several experts or none) and
    no sequence of them; `ValueError` when `losses` or `baseline` has another shape, layers have other datapoints, or
    those of a stack several experts per datapoint, and for `pairs` of a routing without weights of pairs.

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
    R. J. Williams, *Simple statistical gradient-following algorithms*, Machine Learning 8 (1992); for `pairs`, W. Kool,
    H. van Hoof, M. Welling, arXiv 2002.06043 (2020), its built-in baseline.
    """
    draw = joint(routing)
    losses = check_losses(draw.kept, losses)
    n = draw.kept.shape[0]
    baseline = jnp.zeros((), losses.dtype) if baseline is None else as_array("baseline", baseline)
    one = routing if isinstance(routing, Routing) else routing[0] if len(routing) == 1 else None
    shapes = ((), (n,)) if one is None else ((), (n,), (n, one.log_probs.shape[-1]))
    if baseline.shape not in shapes:
        allowed = f"({n},)" if one is None else f"({n},) or {shapes[-1]}"
        raise ValueError(f"baseline must be a scalar or have shape {allowed}, got {baseline.shape}")
    if pairs and (one is None or one.pair_weight is None):
        raise ValueError("pairs needs a routing of two or more experts per datapoint by a weighted router: it has none")
    return _value(draw, one, losses, baseline, pairs)


@partial(jax.jit, static_argnames="pairs")
def _value(draw: "Joint", one: Routing | None, losses: Array, baseline: Array, pairs: bool) -> Array:
    """Of arguments that fit; `one` is the routing where there is one."""
    stop = jax.lax.stop_gradient
    losses = jnp.where(draw.kept, losses, 0)
    weight, baseline = stop(draw.weight), stop(baseline)
    count = jnp.maximum(jnp.sum(draw.mask), 1).astype(losses.dtype)
    if one is not None and one.experts_per_datapoint is not None:
        weighted, score, added = several_experts_terms(one, losses, baseline, one.pair_weight if pairs else None)
        return jnp.sum(weighted + score + added) / count
    if one is not None and baseline.ndim == 2:
        baseline = jnp.where(one.mask[:, None], baseline, 0)
        subtracted = at_expert(baseline, one.expert)
        added = jnp.sum(baseline * gradient_only(jnp.exp(one.log_probs)), axis=1)
    else:
        subtracted, added = jnp.where(draw.mask, baseline, 0), 0.0
    score = stop(weight * (losses - subtracted)) * gradient_only(draw.log_prob)
    return jnp.sum(weight * losses + score + added) / count


def check_losses(kept: Array, losses: ArrayLike) -> Array:
    """`losses`, one for each entry of `kept`: others would broadcast to something else."""
    array = as_array("losses", losses)
    if array.shape != kept.shape:
        each = "datapoint" if kept.ndim == 1 else "datapoint and expert of it"
        raise ValueError(f"losses must have shape {kept.shape}, one per {each}, got {array.shape}")
    return array


class Joint(NamedTuple):
    """`(n,)` arrays: what happened to every datapoint in all layers together. Of a single layer whose datapoints have
    several experts, `(n, m)` but for the mask.
    """

    kept: Array
    weight: Array
    log_prob: Array
    mask: Array


def joint(routing: Routings) -> Joint:
    """One routing, or several of a stack of layers: the product of the weights, the sum of the log-probabilities."""
    layers = (routing,) if isinstance(routing, Routing) else routing
    if not (isinstance(layers, list | tuple) and all(isinstance(layer, Routing) for layer in layers)):
        got = type(routing).__name__
        raise TypeError(f"routing must be a Routing with one expert per datapoint, or a sequence of them, got {got}")
    if len(layers) > 1 and any(layer.experts_per_datapoint is not None for layer in layers):
        raise ValueError(
            "routing of a stack of layers must have one expert per datapoint in each: the next layer sees a mixture of "
            "several experts' outputs, in which the loss is not linear, and the weights are unbiased for linear losses"
        )
    shapes = [layer.kept.shape for layer in layers]
    if len(set(shapes)) != 1:
        raise ValueError(f"routing must be of the same datapoints in every layer, at least one, got shapes {shapes}")
    kept, weight, log_prob, mask = ([getattr(layer, name) for layer in layers] for name in Joint._fields)
    both = jnp.logical_and
    return Joint(reduce(both, kept), reduce(jnp.multiply, weight), reduce(jnp.add, log_prob), reduce(both, mask))
