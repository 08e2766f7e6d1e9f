"""A baseline for every expert, from a network that predicts the losses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._experts import at_experts
from gumbel_moe.estimators._learned import (
    LearnedState,
    Optimiser,
    first_state,
    kept_rows,
    mean_of_kept,
    present_rows,
    step,
)
from gumbel_moe.estimators._score_function import check_losses, score_function_loss
from gumbel_moe.routing import Routing


@dataclass(frozen=True)
class LossCritic:
    r"""A network that predicts the loss $f_{ij}$ of every datapoint under every expert: the baseline $b_{ij}$.

    It is trained on the losses of the experts that were drawn. Where the loss is a cheap function of an expert's
    output, [`StudentExperts`][gumbel_moe.estimators.StudentExperts] predict far better; a critic is for losses that are
    not, as those of a layer deep inside a network.

    *Use first, update then*: a critic that has learned from a draw is biased for that draw. `loss` keeps the order.

    **Arguments:**

    - `apply`: from parameters and `x` `(n, ...)` to `(n, k)`, differentiable in the parameters.
    - `optimiser`: an optax `GradientTransformation`, or any pair of functions like it.

    ```python
    >>> import jax, jax.numpy as jnp, optax
    >>> from gumbel_moe.estimators import LossCritic
    >>> from gumbel_moe.routing import SkipRouter
    >>> critic = LossCritic(lambda params, x: x @ params, optax.adam(1e-2))
    >>> x, state = jnp.ones((4, 3)), critic.init(jnp.zeros((3, 2)))
    >>> def loss(logits, state, key):
    ...     routing = SkipRouter(capacity=2)(key, logits)
    ...     return critic.loss(state, routing, jnp.array([1.0, 3.0])[routing.expert], x)
    >>> gradient, state = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((4, 2)), state, jax.random.key(0))
    >>> bool((critic.baseline(state, x) > 0).all())
    True

    ```

    Reference: action-dependent baselines with their exact correction are in S. Gu et al., *MuProp: Unbiased
    Backpropagation for Stochastic Neural Networks*, arXiv 1511.05176 (2016).
    """

    apply: Callable[[Any, Array], Array]
    optimiser: Optimiser

    def init(self, params: Any) -> LearnedState:
        """The state before the first batch, from the network's parameters."""
        return first_state(self.optimiser, params)

    def baseline(self, state: LearnedState, x: ArrayLike) -> Array:
        """`(n, k)` to give to [`score_function_loss`][gumbel_moe.estimators.score_function_loss]."""
        return self.apply(*jax.lax.stop_gradient((state.params, as_array("x", x))))

    def update(self, state: LearnedState, routing: Routing, losses: ArrayLike, x: ArrayLike) -> LearnedState:
        """The state after a step towards the losses, `(n,)` or `(n, m)`: no longer for the draw that made them."""
        losses = kept_rows(routing, check_losses(routing.kept, losses))
        x = present_rows(routing, as_array("x", x))
        state = jax.lax.stop_gradient(state)

        def error(params: Any) -> Array:
            return mean_of_kept(routing, (at_experts(self.apply(params, x), routing.expert) - losses) ** 2)

        return step(self.optimiser, state, jax.grad(error)(state.params))

    def loss(
        self, state: LearnedState, routing: Routing, losses: ArrayLike, x: ArrayLike
    ) -> tuple[Array, LearnedState]:
        """`score_function_loss` with the baseline of `state`, and the state after this batch, for the next one."""
        value = score_function_loss(routing, losses, jnp.asarray(self.baseline(state, x)))
        return value, self.update(state, routing, losses, x)
