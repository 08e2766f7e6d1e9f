"""The auxiliary loss of the Switch Transformer."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import best_expert, best_experts, count
from gumbel_moe.routing._record import ExpertChoiceRouting, Routing


def load_balancing_loss(routing: Routing | ExpertChoiceRouting) -> Array:
    r"""The load-balancing loss of the Switch Transformer,

    $$k \sum_j f_j P_j, \qquad f_j = \frac1n \#\{i : \arg\max_l p_{il} = j\}, \qquad P_j = \frac1n \sum_i p_{ij},$$

    1 when both are uniform, over the datapoints that take part. $f$ counts the best expert of every datapoint before
    any is dropped, and is constant for the gradient, which flows through $P$. For a routing of $m$ experts per
    datapoint it counts the $m$ best ones, and is divided by $m$. Multiply by a small factor (0.01 in the paper) and add
    to the loss.

    **Arguments:**

    - `routing`: of any router; only its `log_probs` are used, and how many experts a datapoint has.

    **Returns:** a scalar; 0 for an empty batch, NaN for NaN logits.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SwitchRouter, load_balancing_loss
    >>> routing = SwitchRouter(capacity=4)(jax.random.key(0), jnp.array([[40.0, 0.0]] * 4))
    >>> float(load_balancing_loss(routing))
    2.0

    ```

    Reference: W. Fedus, B. Zoph, N. Shazeer, arXiv 2101.03961 (2021), equations 4 to 6, without the factor alpha.
    """
    number = (routing.experts_per_datapoint or 1) if isinstance(routing, Routing) else 1
    return _loss(routing.log_probs, routing.mask, number)


@partial(jax.jit, static_argnames="number")
def _loss(log_probs: Array, present: Array, number: int) -> Array:
    k = log_probs.shape[1]
    n = jnp.maximum(jnp.sum(present), 1).astype(log_probs.dtype)
    scores = jax.lax.stop_gradient(log_probs)
    if number == 1:
        chosen = count(best_expert(scores), k, present)
    else:  # who takes no part has no score, and so no expert
        chosen = count(best_experts(scores, number).reshape(-1), k)
    fraction = chosen.astype(log_probs.dtype) / (n * number)
    mean = jnp.sum(jnp.exp(log_probs), axis=0) / n
    return k * jnp.sum(fraction * mean)
