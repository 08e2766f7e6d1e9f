"""Logits with leading axes, routed as one batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits


@dataclass(frozen=True)
class _OneBatch:
    router: Callable[..., Any]

    @property
    def weighted(self) -> bool:
        return getattr(self.router, "weighted", True)

    def __call__(self, key: Array, logits: ArrayLike, *state: Any, mask: ArrayLike | None = None) -> Any:
        logits, present = check_logits(logits, mask)
        flat = logits.reshape(-1, logits.shape[-1])
        return self.router(key, flat, *state, mask=None if present is None else jnp.reshape(present, -1))


def as_one_batch(router: Callable[..., Any]) -> Callable[..., Any]:
    """A router of logits `(..., n, k)` that routes the datapoints of all leading axes together, as one batch.

    Routers take logits `(n, k)`: which datapoints share the experts' capacities is for the caller to say. Tokens of
    several sequences usually do, so that a capacity is one of the whole batch (this function); or every sequence has
    capacities of its own (`jax.vmap`).

    **Arguments:**

    - `router`: any router of `gumbel_moe.routing`.

    **Returns:** a function of a `key`, `logits` `(..., n, k)`, the router's state if it has one, and a `mask` `(...,
    n)`. It returns the router's record for all datapoints, in the order of `logits.reshape(-1, k)`: give
    [`dispatch`][gumbel_moe.routing.dispatch] tokens in the same order, and bring the rows of
    [`combine`][gumbel_moe.routing.combine] back by `reshape`.

    **Raises:** what the router raises, and `ValueError` for logits with fewer than two axes, or a mask of another
    shape.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import GumbelMatchingRouter, as_one_batch, capacity_for, combine, dispatch, load
    >>> tokens, logits = jnp.ones((2, 6, 5)), jnp.zeros((2, 6, 3))  # 2 sequences of 6 tokens, 3 experts
    >>> mask = jnp.arange(6) < jnp.array([[6], [3]])  # the second sequence is shorter
    >>> capacity = capacity_for(12, 3)
    >>> routing = as_one_batch(GumbelMatchingRouter(capacity))(jax.random.key(0), logits, mask=mask)
    >>> buffers = dispatch(tokens.reshape(12, 5), routing, capacity)
    >>> outputs = combine(buffers, routing).reshape(tokens.shape)
    >>> int(load(routing).sum()), outputs[1, :, 0].tolist()
    (9, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0])

    ```
    """
    return _OneBatch(router)
