"""Routing without a batch: every token alone to its best expert, at prices that were learned when batches were routed.

The matching of a batch has prices $u$ at which each of its tokens has the expert that is best for it by $a_{ij} - u_j$.
Their running mean, kept in training, lets a single token be routed as if in a batch, causally and without a capacity.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import Routing, SwitchRouter

Gate = Literal["one", "softmax", "sigmoid"]


def gated(routing: Routing, logits: Float[Array, "n k"], gate: Gate) -> Routing:
    """The routing with another gate: 1, the probability of its expert, or the logistic function of its logit."""
    if gate == "one":
        return routing._replace(gate=jnp.ones_like(routing.gate))
    if gate == "softmax":
        return routing._replace(gate=jnp.exp(routing.log_prob))
    own = jnp.take_along_axis(logits, routing.expert[:, None], axis=1)[:, 0]
    return routing._replace(gate=jax.nn.sigmoid(own))


@dataclass(frozen=True)
class ArgmaxRouter:
    """Every token to the expert of the largest `logit - price`; nobody is skipped, and no token looks at another.

    Its state are the prices `(k,)`, which it does not change.

    **Arguments:**

    - `capacity`: rows of an expert's buffer, as many as there are tokens.
    - `gate`: by which the expert's output is multiplied, as it was in training.
    """

    capacity: int
    gate: Gate = "one"

    def init(self, num_experts: int) -> Float[Array, " k"]:
        """No prices: the plain largest logit."""
        return jnp.zeros(num_experts)

    def update(self, prices: Float[Array, " k"], routing: Routing) -> Float[Array, " k"]:
        """The prices as they were."""
        return prices

    def __call__(
        self,
        key: PRNGKeyArray,
        logits: Float[Array, "n k"],
        prices: Float[Array, " k"],
        *,
        mask: Bool[Array, " n"] | None = None,
    ) -> Routing:
        """The `Routing` of `logits`."""
        priced = SwitchRouter(self.capacity)(key, logits - prices, mask=mask)
        log_probs = jax.nn.log_softmax(logits, axis=1)
        own = jnp.take_along_axis(log_probs, priced.expert[:, None], axis=1)[:, 0]
        return gated(priced._replace(log_probs=log_probs, log_prob=own), logits, self.gate)


@dataclass(frozen=True)
class PriceKeeper:
    """A router, and the running mean of the prices of its batches' exact matchings without noise, as its state.

    **Arguments:**

    - `router`: one without a state, whose `capacity` is that of the matching.
    - `decay`: of the running mean, at least 0 and below 1; its first batches count in full.
    """

    router: Any
    decay: float = 0.99
    capacity: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", self.router.capacity)

    @property
    def weighted(self) -> bool:
        """As the router's."""
        return self.router.weighted

    def init(self, num_experts: int) -> tuple[Float[Array, " k"], Float[Array, ""]]:
        """A decayed sum of prices, and of the weights in it."""
        return jnp.zeros(num_experts), jnp.zeros(())

    def update(self, state: tuple[Array, Array], routing: Routing) -> tuple[Array, Array]:
        """The state after the batch of `routing`; logits of a failed matching do not count."""
        total, weight = state
        prices = solve_matching(jax.lax.stop_gradient(routing.log_probs), self.capacity).prices
        prices = prices - jnp.mean(prices)  # a constant changes nothing
        fine = jnp.isfinite(prices).all()
        new = self.decay * total + (1 - self.decay) * prices, self.decay * weight + 1 - self.decay
        return jax.tree.map(lambda after, before: jnp.where(fine, after, before), new, (total, weight))

    @staticmethod
    def prices(state: tuple[Array, Array]) -> Array:
        """`(..., k)` the mean; 0 before the first batch."""
        total, weight = state
        return total / jnp.where(weight > 0, weight, 1)[..., None]

    def __call__(
        self,
        key: PRNGKeyArray,
        logits: Float[Array, "n k"],
        state: Any,
        *,
        mask: Bool[Array, " n"] | None = None,
    ) -> Routing:
        """The router's own `Routing`: the state does not change it."""
        return self.router(key, logits, mask=mask)
