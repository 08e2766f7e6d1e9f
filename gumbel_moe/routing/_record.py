"""What a router returns: who goes where, as a pytree of arrays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._experts import count


class Routing(NamedTuple):
    """The experts of every datapoint, a pytree of arrays over `n` datapoints and `k` experts.

    One expert each, in arrays `(n,)`; or `m` each, where the router was made with `experts_per_datapoint=m`, in arrays
    `(n, m)`: distinct, and in ascending order. A datapoint that may have fewer than `m` experts, since the others are
    forbidden to it, has `k` for an expert in the places that are left, and is not kept there.

    A datapoint that the router's `mask` leaves out, such as padding, takes no place and counts nowhere: its `expert` is
    `k`, which scatters and one-hot codes drop, it is not `kept`, its `weight`, `log_prob` and `gate` are 0, and all its
    `log_probs` are `-inf`. Its logits may hold anything.

    Under `jit`, where bad input cannot raise, a datapoint with NaN logits has NaN `weight`, `log_prob` and `gate`; a
    router that looks at the whole batch at once marks all of them so. Without a feasible assignment `expert` is -1
    throughout and `kept` is true, so that [`combine`][gumbel_moe.routing.combine] gives NaN.
    """

    expert: Array
    """`(n,)` or `(n, m)` int32: the expert drawn or chosen, also where the datapoint was skipped; `k` where it was left
    out."""
    kept: Array
    """`(n,)` or `(n, m)` bool: whether that expert handles the datapoint; false where it was skipped for lack of room
    or left out.
    """
    weight: Array
    """`(n,)` or `(n, m)` importance weight, 0 where skipped; no gradient flows through it."""
    log_prob: Array
    r"""`(n,)` or `(n, m)` $\log p_{ij}$ in nats for that expert, differentiable in the logits."""
    gate: Array
    """`(n,)` or `(n, m)` factor of the expert's output in the method's own way of predicting, differentiable; 1 for the
    weighted draws. Not zeroed where skipped."""
    log_probs: Array
    r"""`(n, k)` $\log p_{ij}$ in nats, the logits normalised over the experts, differentiable."""
    pair_weight: Array | None = None
    r"""`(n, m, m)` weights of two experts of a datapoint together, $E[W_{ijl} 1(j, l \in S_i)] = p_{ij} p_{il}$; 0 on
    the diagonal and where one of the two does not keep it. No gradient flows through it. None for one expert each, and
    for routers that are not weighted."""

    @property
    def mask(self) -> Array:
        """`(n,)` bool: false for the datapoints that were left out."""
        return _taking_part(self.log_probs)

    @property
    def experts_per_datapoint(self) -> int | None:
        """How many experts every datapoint has, `m` of arrays `(n, m)`; None for one each, of arrays `(n,)`."""
        return self.expert.shape[-1] if self.expert.ndim == self.log_probs.ndim else None


class ExpertChoiceRouting(NamedTuple):
    """Several experts for a datapoint, one, or none: what every expert chose, a pytree of arrays."""

    datapoint: Array
    """`(k, capacity)` int32: the datapoint in each place of each expert; -1 where a place stays empty."""
    gate: Array
    """`(k, capacity)` factor of the expert's output, differentiable; 0 where a place stays empty."""
    log_probs: Array
    r"""`(n, k)` $\log p_{ij}$ in nats, the logits normalised over the experts, differentiable; `-inf` throughout for
    datapoints that were left out."""

    @property
    def mask(self) -> Array:
        """`(n,)` bool: false for the datapoints that were left out."""
        return _taking_part(self.log_probs)

    @property
    def experts_per_datapoint(self) -> Array:
        """`(n,)` int32: how many experts chose each datapoint; 0 for those that nobody handles."""
        n = self.log_probs.shape[0]
        chosen = jnp.where(self.datapoint < 0, n, self.datapoint)
        return jnp.zeros(n, jnp.int32).at[chosen].add(1, mode="drop")


def _taking_part(log_probs: Array) -> Array:
    return ~jnp.all(jnp.isneginf(log_probs), axis=-1)


@jax.jit
def count_all(routing: Routing, counted: Array) -> Array:
    """`(..., k)` int32: how many datapoints every expert has in `routing`, of its entries that count."""
    expert, k = routing.expert, routing.log_probs.shape[-1]
    if routing.experts_per_datapoint is not None:
        together = (*expert.shape[:-2], -1)
        expert, counted = expert.reshape(together), jnp.broadcast_to(counted, expert.shape).reshape(together)
    return count(expert, k, counted)


def load(routing: Routing | ExpertChoiceRouting) -> Array:
    """The number of datapoints that every expert handles, skipped ones not counted.

    **Arguments:**

    - `routing`: what a router returned.

    **Returns:** `(k,)` int32.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SwitchRouter, load
    >>> routing = SwitchRouter(capacity=2)(jax.random.key(0), jnp.array([[1.0, 0.0]] * 4))
    >>> load(routing).tolist()
    [2, 0]

    ```
    """
    if isinstance(routing, ExpertChoiceRouting):
        return jnp.sum(routing.datapoint >= 0, axis=1, dtype=jnp.int32)
    return count_all(routing, routing.kept)
