"""How good a model is at test: by the enumerated objective, and in its method's own way of predicting."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import exact_loss
from inference._tasks import Task
from inference.methods import Method
from inference.methods._method import mixture_log_likelihoods, most_probable
from models import Mixture


def evaluate(task: Task, method: Method, model: Mixture, memory: Any) -> dict[str, Array]:
    """Scalars over the test set.

    - `true_loss`: the mean of `sum_j p_ij f_ij`, all experts, no capacity: the objective itself.
    - `own_loss`: the mean loss of the method's own prediction.
    - `argmax_loss`: the mean loss of the most probable expert's output, no gate.
    - where the task is classification, `accuracy` (own), `argmax_accuracy`, `log_likelihood` (own, mean nats) and
      `mixture_log_likelihood` (that of all experts mixed by `p`, enumerated).
    """
    x, y = task.test
    capacity = task.test_capacity
    routed = most_probable(model, x)
    metrics = {
        "true_loss": exact_loss(model.logits(x), model.all_losses(x, y)),
        "own_loss": jnp.mean(method.own_losses(model, x, y, memory, capacity)),
        "argmax_loss": jnp.mean(model.losses(routed, y)),
    }
    if task.classifies:
        own = method.own_outputs(model, x, memory, capacity)
        metrics |= {
            "accuracy": jnp.mean(jnp.argmax(own, axis=1) == y),
            "argmax_accuracy": jnp.mean(jnp.argmax(routed, axis=1) == y),
            "log_likelihood": jnp.mean(method.own_log_likelihoods(model, x, y, memory, capacity)),
            "mixture_log_likelihood": jnp.mean(mixture_log_likelihoods(model, x, y)),
        }
    return metrics
