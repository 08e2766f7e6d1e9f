"""How good a model is at test: means over the test set, in chunks that fit into memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import exact_loss
from inference.training.methods import Method
from models import OneRoutedLayer

Metrics = Callable[[Method, Any, Array, Array, Any, int], dict[str, Array]]
"""From a method, a model, datapoints `x` and `y`, the router's state and an expert's places among so many datapoints to
scalars, each a mean over the datapoints."""


def mixture_metrics(
    method: Method, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int
) -> dict[str, Array]:
    """By enumeration of the experts.

    - `true_loss`: the mean of `sum_j p_ij f_ij`, all experts, no capacity: the objective itself.
    - `own_loss`: the mean loss of the method's own prediction.
    - `argmax_loss`: the mean loss of the most probable expert's output, no gate.
    """
    return {
        "true_loss": exact_loss(model.logits(x), model.all_losses(x, y)),
        "own_loss": jnp.mean(method.predict(model, x, y, router_state, capacity).losses),
        "argmax_loss": jnp.mean(model.losses(model.most_probable_outputs(x), y)),
    }


def classifier_metrics(
    method: Method, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int
) -> dict[str, Array]:
    """Those of a mixture, `accuracy` (own), `argmax_accuracy`, `log_likelihood` (own, mean nats) and
    `mixture_log_likelihood` (that of all experts mixed by `p`, enumerated).
    """
    own = partial(method.predict, model, x, y, router_state, capacity)
    return {
        **mixture_metrics(method, model, x, y, router_state, capacity),
        "accuracy": jnp.mean(jnp.argmax(own().outputs, axis=1) == y),
        "argmax_accuracy": jnp.mean(jnp.argmax(model.most_probable_outputs(x), axis=1) == y),
        # Asked for anew: of a shared one XLA sums losses in another order, and earlier figures differ in the last bit.
        "log_likelihood": jnp.mean(own().log_likelihoods),
        "mixture_log_likelihood": jnp.mean(model.mixture_log_likelihoods(x, y)),
    }


def training_metrics(
    method: Method, model: OneRoutedLayer, x: Array, y: Array, router_state: Any, capacity: int
) -> dict[str, Array]:
    """`training_loss`: the objective on the training data, which is what gradients are estimates of."""
    return {"training_loss": exact_loss(model.logits(x), model.all_losses(x, y))}


@dataclass(frozen=True)
class Evaluation:
    """What is measured on some data, at test or those trained on. A task whose experts cannot be enumerated brings
    `metrics` of its own.
    """

    metrics: Metrics
    unit: str
    """Of the loss."""
    solved_below: float | None = None
    """A start is solved when its loss at test is below this; None where the question is not asked."""
    chunk: int = 4096
    """Datapoints that are evaluated at once; not of a method with `whole_test_set`, which sees all at once."""

    def __call__(
        self,
        method: Method,
        model: Any,
        router_state: Any,
        data: tuple[Array, Array],
        capacity_among: Callable[[int], int],
    ) -> dict[str, Array]:
        """The metrics over `data`; `capacity_among` says how many places an expert has among so many datapoints."""

        def means(part: tuple[Array, Array]) -> dict[str, Array]:
            return self.metrics(method, model, *part, router_state, capacity_among(part[0].shape[0]))

        n = data[0].shape[0]
        if n <= self.chunk or method.whole_test_set:
            return means(data)
        chunks, rest = divmod(n, self.chunk)
        ahead = jax.tree.map(lambda a: a[: n - rest].reshape(chunks, self.chunk, *a.shape[1:]), data)
        total = jax.tree.map(lambda mean: self.chunk * jnp.sum(mean, axis=0), jax.lax.map(means, ahead))
        if rest:
            last = means(jax.tree.map(lambda a: a[n - rest :], data))
            total = jax.tree.map(lambda so_far, mean: so_far + rest * mean, total, last)
        return jax.tree.map(lambda so_far: so_far / n, total)
