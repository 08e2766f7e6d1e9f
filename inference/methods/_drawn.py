"""Routers that draw: trained by the score-function estimator on the experts they drew."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import Routing, combine, dispatch
from inference.methods._method import Memory, Method, Step, mixture_log_likelihoods, most_probable, traffic_of
from models import Mixture

_DECAY = 0.99  # of the running mean that serves as the baseline


@dataclass(frozen=True, kw_only=True)
class DrawnMethod(Method):
    """Every datapoint's expert is drawn, in training by the router and at test from its own `p`.

    The baseline is the running mean of the losses of earlier batches: it does not depend on the current draw, so it
    adds no bias.
    """

    make_router: Callable[[int], Callable[[Array, Array], Routing]]
    """From the capacity of an expert to the router."""
    limited: bool = True
    """Whether the router keeps to the capacity."""
    own_way: str = "one expert drawn from p; for accuracy and picture, the output of the most probable expert"

    def memory(self, num_experts: int) -> Memory:
        """Weighted sum of the losses so far and sum of the weights: their ratio is right from the first batch on."""
        return jnp.zeros(()), jnp.zeros(())

    def loss(self, key: Array, model: Mixture, x: Array, y: Array, memory: Memory, capacity: int) -> tuple[Array, Step]:
        """The surrogate whose value and gradient estimate those of the enumerated objective."""
        places = capacity if self.limited else x.shape[0]
        routing = self.make_router(places)(key, model.logits(x))
        buffers = model.expert_outputs(dispatch(x, routing, places))
        losses = model.losses(combine(buffers, routing), y)
        total, seen = memory
        value = score_function_loss(routing, losses, baseline=total / jnp.maximum(seen, 1 - _DECAY))
        # Over the weights, not over n: also without the right weights this is the loss of those that were computed.
        mean = jnp.sum(routing.weight * losses) / jnp.maximum(jnp.sum(routing.weight), 1)
        memory = (_DECAY * total + (1 - _DECAY) * jax.lax.stop_gradient(mean), _DECAY * seen + 1 - _DECAY)
        return value, Step(memory, traffic_of(routing))

    def own_outputs(self, model: Mixture, x: Array, memory: Memory, capacity: int) -> Array:
        """The output of the most probable expert."""
        return most_probable(model, x)

    def own_losses(self, model: Mixture, x: Array, y: Array, memory: Memory, capacity: int) -> Array:
        r"""$\sum_j p_{ij} f_{ij}$, the expectation over the expert that is drawn."""
        return jnp.sum(jax.nn.softmax(model.logits(x), axis=1) * model.all_losses(x, y), axis=1)

    def own_log_likelihoods(self, model: Mixture, x: Array, y: Array, memory: Memory, capacity: int) -> Array:
        r"""$\log \sum_j p_{ij} e^{-f_{ij}}$: an expert that is drawn makes the prediction a mixture."""
        return mixture_log_likelihoods(model, x, y)


class WeightedMethod(DrawnMethod):
    """The draw is weighted so that the gradient is unbiased."""

    kind = "weighted"


class UncorrectedMethod(DrawnMethod):
    """The same draw without its weights: what the capacities do to the gradient is left in."""

    kind = "uncorrected"
