"""The score-function estimator for losses that couple datapoints: the score of the assignment as it was drawn."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._experts import at_expert
from gumbel_moe.estimators._gradient_only import gradient_only
from gumbel_moe.estimators._losses_to_go import losses_to_go
from gumbel_moe.routing import Routing

Scored = Routing | ArrayLike
"""What a layer drew: a routing, whose tokens have a log-probability each, or a log-probability."""


def assignment_score_loss(
    routing: Scored | Sequence[Scored],
    losses: ArrayLike,
    baseline: ArrayLike | Sequence[ArrayLike | None] | None = None,
    *,
    credit: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> Array:
    r"""A scalar whose value is the mean loss of a network of routed layers, and whose gradient estimates that of its
    expectation under the routers' own draws.

    In a network with attention, or any layers in which tokens see each other, the loss of one token depends on the
    experts of others, and the weights of [`score_function_loss`][gumbel_moe.estimators.score_function_loss] no longer
    stand for what they should. The objective here is $E[F]$, with $F$ the mean loss of the network when each of its
    layers draws its assignment $z^l$ from a process $Q_l$, *with its capacities*, skipping and all:

    $$\nabla E[F] = E\Big[ \nabla F + (F - b) \sum_l \nabla \log Q_l(z^l) \Big] .$$

    No importance weights. For independent draws and for the skip process $\nabla \log Q$ is the sum over all tokens of
    $\nabla \log p_{i z_i}$, of the skipped ones too, since who is skipped does not depend on the logits: what a
    `Routing` holds. For Gumbel-Matching it is the gradient of
    [`matching_log_prob`][gumbel_moe.distributions.matching_log_prob], or to first order that of
    [`at_market_prices`][gumbel_moe.estimators.at_market_prices].

    With a `credit` $\gamma$ every token's score is multiplied, in the place of $F$, by what its route can be held
    responsible for, its own loss and later ones of its sequence $s$, of $N$ tokens in all:

    $$\frac1N \sum_{s, t} \Big( \sum_{t' \ge t} \gamma^{t' - t} f_{s t'} - b_{st} \Big)
    \sum_l \nabla \log p^l_{st, z^l_{st}} .$$

    **Arguments:**

    - `routing`: of each layer, in a list or tuple, or of the only one: a [`Routing`][gumbel_moe.routing.Routing] with
      one expert per datapoint, of an independent or a skip router without a floor, or from `at_market_prices`; or the
      log-probability in nats of what was drawn, differentiable, as a scalar of the whole assignment or of the shape of
      the losses, token by token. With a floor the router draws from other probabilities than a `Routing` holds: put
      the floor into the logits, where it is differentiated.
    - `losses`: `(t,)` of one sequence, or `(..., t)` of several, differentiable: the loss of every token, also of those
      that were skipped, who have one too. A `Routing` has the tokens in the order of `losses.reshape(-1)`.
    - `baseline`: what to subtract in the score term, treated as a constant, that must not depend on the draw; of all
      layers, or in a list or tuple one for each. A scalar, or of the shape of the losses: a value for each token.
      `(n, k)`, for a `Routing` with `n` tokens in all: a value for each token and expert; then $b_{i z_i}$ is
      subtracted and $\sum_j b_{ij} \nabla p_{ij}$ added, which is exact for tokens that draw independently of each
      other. In the unit of what it is subtracted from: the mean loss $F$ without a `credit`, with one
      the [losses to go][gumbel_moe.estimators.losses_to_go]. None: 0.
    - `credit`: None gives every score the loss of the whole batch; a scalar $\gamma$ from 0 to 1 the losses to go.
    - `mask`: of the shape of the losses, bool, false for tokens that count nowhere, such as padding; by default those
      that the routings leave out.

    **Returns:** a scalar, of the dtype of the losses; 0 if no token counts.

    The gradient is unbiased without a `credit`, and with `credit=1` for independent draws in a causal network, where a
    route touches later losses of its own sequence only. It is biased, with less noise, for $\gamma < 1$, which leaves
    later losses out; for any `credit` under a capacity, which leaves out that a token may take another one's place; to
    first order in the place of the exact score of Gumbel-Matching. The documentation's page on theory has how much.

    **Raises:** `ValueError` when shapes do not agree, a `credit` is not from 0 to 1 or given for the probability of a
    whole assignment, a baseline `(n, k)` for what is no `Routing`, or datapoints have several experts; `TypeError` for
    an [`ExpertChoiceRouting`][gumbel_moe.routing.ExpertChoiceRouting].

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import assignment_score_loss
    >>> from gumbel_moe.routing import SkipRouter
    >>> def loss(logits, key):
    ...     routing = SkipRouter(capacity=3)(key, logits)
    ...     own = jnp.where(routing.kept, jnp.array([1.0, 3.0])[routing.expert], 2.0).reshape(2, 3)
    ...     return assignment_score_loss(routing, own + jnp.cumsum(own, axis=1), baseline=4.0)
    >>> jax.grad(loss)(jnp.zeros((6, 2)), jax.random.key(0)).shape
    (6, 2)

    ```

    Reference: R. J. Williams, *Simple statistical gradient-following algorithms*, Machine Learning 8 (1992); losses to
    go, and which terms a score needs, J. Schulman, N. Heess, T. Weber, P. Abbeel, *Gradient Estimation Using Stochastic
    Computation Graphs*, arXiv 1506.05254 (2015).
    """
    # Records are tuples too, with names.
    layers: list[Any] = list(routing) if type(routing) in (list, tuple) else [routing]  # pyright: ignore[reportArgumentType]
    losses = as_array("losses", losses)
    if losses.ndim == 0:
        raise ValueError("losses must have shape (..., t), one for each token, got a scalar")
    for layer in layers:
        _check_layer(layer, losses)
    present = _present(layers, mask, losses)
    losses = jnp.where(present, losses, 0)
    number = jnp.maximum(jnp.sum(present), 1).astype(losses.dtype)
    mean = jnp.sum(losses) / number
    fixed = jax.lax.stop_gradient(losses)
    told = jnp.sum(fixed) / number if credit is None else losses_to_go(fixed, credit)
    each = 1 if credit is None else number

    total = mean
    for layer, subtract in zip(layers, _baselines(baseline, len(layers)), strict=True):
        total = total + _score(layer, told, subtract, present, credit is None) / each
    return total


def _score(layer: Scored, told: Array, baseline: ArrayLike | None, present: Array, whole: bool) -> Array:
    """The score term of a layer: zero, with a gradient. `told` is the loss, or one for each token."""
    stop, shape = jax.lax.stop_gradient, present.shape
    subtract = stop(jnp.zeros((), told.dtype) if baseline is None else as_array("baseline", baseline))
    log_prob = layer.log_prob.reshape(shape) if isinstance(layer, Routing) else as_array("routing", layer)
    if log_prob.ndim == 0:
        if not whole or subtract.ndim:
            given = f"a baseline of shape {subtract.shape}" if whole else "a credit"
            raise ValueError(f"the log-probability of a whole assignment, a scalar, has no tokens for {given}")
        return (told - subtract) * gradient_only(log_prob)
    added: Array | float = 0.0
    if isinstance(layer, Routing) and subtract.ndim == 2 and subtract.shape == layer.log_probs.shape != shape:
        table = jnp.where(present.reshape(-1, 1), subtract, 0)
        added = jnp.sum(table * gradient_only(jnp.exp(layer.log_probs)))
        subtract = at_expert(table, layer.expert).reshape(shape)
    elif subtract.shape not in ((), shape):
        table = f", or {layer.log_probs.shape} for a Routing" if isinstance(layer, Routing) else ""
        raise ValueError(f"baseline must be a scalar or have shape {shape}{table}, got {subtract.shape}")
    advantage = jnp.where(present, told - subtract, 0)
    return jnp.sum(advantage * gradient_only(log_prob)) + added


def _check_layer(layer: Scored, losses: Array) -> None:
    if isinstance(layer, Routing):
        if layer.experts_per_datapoint is not None:
            raise ValueError("routing must have one expert per datapoint: the score of a set of them is another")
        if layer.kept.shape != (losses.size,):
            got = f"{losses.shape} for {layer.kept.shape[0]} datapoints"
            raise ValueError(f"losses must be one for each datapoint of routing, got shape {got}")
        return
    if isinstance(layer, tuple):  # the record of experts that choose, or layers within layers
        raise TypeError(f"routing must be a Routing, a log-probability, or a list of them, got {type(layer).__name__}")
    shape = as_array("routing", layer).shape
    if shape not in ((), losses.shape):
        raise ValueError(f"a log-probability must be a scalar or have the shape of losses {losses.shape}, got {shape}")


def _present(layers: Sequence[Scored], mask: ArrayLike | None, losses: Array) -> Array:
    """Which tokens count, of the shape of the losses."""
    if mask is not None:
        given = as_array("mask", mask)
        if given.shape != losses.shape or given.dtype != bool:
            raise ValueError(f"mask must be bool of shape {losses.shape}, got {given.dtype} of shape {given.shape}")
        return given
    present = jnp.ones(losses.shape, bool)
    for layer in layers:
        if isinstance(layer, Routing):
            present = present & layer.mask.reshape(losses.shape)
    return present


def _baselines(baseline: Any, number: int) -> Sequence[ArrayLike | None]:
    """One for each layer."""
    if not isinstance(baseline, list | tuple):
        return [baseline] * number
    if len(baseline) != number:
        raise ValueError(f"baseline must be one for all layers or one for each of {number}, got {len(baseline)}")
    return baseline
