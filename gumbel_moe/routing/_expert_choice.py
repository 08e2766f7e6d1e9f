"""Expert choice: every expert takes its best datapoints."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits, check_positive_int
from gumbel_moe.routing._assemble import without_absent
from gumbel_moe.routing._record import ExpertChoiceRouting


@dataclass(frozen=True)
class ExpertChoiceRouter:
    r"""Every expert takes the `capacity` datapoints of the largest $p_{ij} = \mathrm{softmax}(a_i)_j$.

    Every expert is exactly full; a datapoint has several experts, one, or none. The outputs of its experts are
    multiplied by the gates $p_{ij}$ and summed, which is what
    [`combine(..., gated=True)`][gumbel_moe.routing.combine] does. The choice looks at the whole batch, so in a
    language model it looks ahead.

    **Arguments:**

    - `capacity`: an int, at least 1 and at most `n`: `n / k` times the average number of experts per datapoint.

    A call takes a JAX `key` (not used), `logits` `(n, k)`, and optionally a `mask` `(n,)` bool, false for datapoints
    that take no part; it returns an [`ExpertChoiceRouting`][gumbel_moe.routing.ExpertChoiceRouting]. `-inf` forbids an
    expert for a datapoint; where too few datapoints are allowed, places stay empty. Among equals the first datapoints
    are taken.

    **Raises:** `ValueError` for a capacity that is no positive int or above `n`, for logits without exactly two axes,
    NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits that are not floating point. Under
    `jit` NaN logits give NaN gates for the whole batch.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import ExpertChoiceRouter
    >>> logits = jnp.array([[3.0, 0.0], [2.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    >>> routing = ExpertChoiceRouter(capacity=2)(jax.random.key(0), logits)
    >>> routing.datapoint.tolist(), routing.experts_per_datapoint.tolist()
    ([[0, 1], [2, 3]], [1, 1, 1, 1])

    ```

    Reference: Y. Zhou et al., *Mixture-of-Experts with Expert Choice Routing*, arXiv 2202.09368 (2022), section 3.2.
    """

    weighted: ClassVar[bool] = False

    capacity: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", check_positive_int("capacity", self.capacity))

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> ExpertChoiceRouting:
        """The [`ExpertChoiceRouting`][gumbel_moe.routing.ExpertChoiceRouting] of `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        if self.capacity > logits.shape[0]:
            raise ValueError(
                f"capacity must be at most the number of datapoints, {logits.shape[0]}, got {self.capacity}"
            )
        return _route(logits, present, self.capacity)


@partial(jax.jit, static_argnames="capacity")
def _route(logits: Array, present: Array | None, capacity: int) -> ExpertChoiceRouting:
    log_probs = without_absent(jax.nn.log_softmax(logits, axis=1), present)
    # By the logarithms, which still differ where probabilities have become 0.
    _, datapoint = jax.lax.top_k(jax.lax.stop_gradient(log_probs).T, capacity)
    chosen = jnp.take_along_axis(log_probs.T, datapoint, axis=1)
    gate = jnp.where(jnp.isnan(log_probs).any(), jnp.nan, jnp.exp(chosen))
    return ExpertChoiceRouting(jnp.where(jnp.isneginf(chosen), -1, datapoint), gate, log_probs)
