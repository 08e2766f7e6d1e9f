"""The baseline of a single number: a running mean of the losses of earlier batches."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe.estimators._score_function import Joint, Routings, check_losses, joint, score_function_loss


class RunningMeanState(NamedTuple):
    """The weighted sum of the mean losses so far, and the sum of their weights: scalars."""

    total: Array
    seen: Array


@dataclass(frozen=True)
class RunningMean:
    r"""The mean loss of earlier batches, $b \leftarrow \gamma b + (1 - \gamma) \bar f$, right from the first batch on.

    It does not depend on the draw that it is used with as long as it is *used first and updated then*; `loss` does
    both in that order. In the other order the estimate is biased.

    **Arguments:**

    - `decay`: $\gamma$, at least 0 and below 1.

    **Raises:** `ValueError` for a decay out of range.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import RunningMean
    >>> from gumbel_moe.routing import SkipRouter
    >>> mean = RunningMean()
    >>> state = mean.init()
    >>> def loss(logits, state, key):
    ...     routing = SkipRouter(capacity=2)(key, logits)
    ...     return mean.loss(state, routing, jnp.array([1.0, 3.0])[routing.expert])
    >>> gradient, state = jax.jit(jax.grad(loss, has_aux=True))(jnp.zeros((4, 2)), state, jax.random.key(0))
    >>> 1 < float(mean.baseline(state)) < 3
    True

    ```
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        if not (math.isfinite(self.decay) and 0 <= self.decay < 1):
            raise ValueError(f"decay must be at least 0 and below 1, got {self.decay!r}")

    def init(self) -> RunningMeanState:
        """The state before the first batch, whose baseline is 0."""
        return RunningMeanState(jnp.zeros(()), jnp.zeros(()))

    def baseline(self, state: RunningMeanState) -> Array:
        """The scalar to give to [`score_function_loss`][gumbel_moe.estimators.score_function_loss]."""
        return state.total / jnp.maximum(state.seen, 1 - self.decay)

    def update(self, state: RunningMeanState, routing: Routings, losses: ArrayLike) -> RunningMeanState:
        """The state after a batch with these losses, `(n,)` or `(n, m)`: no longer for the draw that made them."""
        draw = joint(routing)
        mean = _mean(draw, check_losses(draw.kept, losses))
        return RunningMeanState(
            (self.decay * state.total + (1 - self.decay) * mean).astype(state.total.dtype),
            self.decay * state.seen + 1 - self.decay,
        )

    def loss(self, state: RunningMeanState, routing: Routings, losses: ArrayLike) -> tuple[Array, RunningMeanState]:
        """`score_function_loss` with the baseline of `state`, and the state after this batch, for the next one."""
        value = score_function_loss(routing, losses, self.baseline(state))
        return value, self.update(state, routing, losses)


@jax.jit
def _mean(draw: Joint, losses: Array) -> Array:
    """Over the weights, not over n: also without the right weights this is the loss of those that were computed."""
    weighted = jnp.sum(jnp.where(draw.kept, draw.weight * losses, 0))
    return jax.lax.stop_gradient(weighted / jnp.maximum(jnp.sum(draw.weight), 1))
