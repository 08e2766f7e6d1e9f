"""Datapoints to the buffers of their experts, and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array, is_traced
from gumbel_moe._checks import check_positive_int
from gumbel_moe._experts import beside, places_in_queues
from gumbel_moe.routing._mixture_output import carrying_p
from gumbel_moe.routing._record import ExpertChoiceRouting, Routing


def dispatch(tokens: ArrayLike, routing: Routing | ExpertChoiceRouting, capacity: int) -> Array:
    """The datapoints that every expert handles, gathered into a buffer of fixed size.

    A datapoint of several experts goes to the buffer of each that keeps it.

    **Arguments:**

    - `tokens`: `(n, ...)`, one row for each datapoint, of any trailing shape and type; differentiable.
    - `routing`: what a router returned for these `n` datapoints.
    - `capacity`: rows of every expert's buffer, a Python int. It may be above the router's capacity.

    **Returns:** `(k, capacity, ...)`: the kept datapoints of every expert in the order of the batch (of an
    [`ExpertChoiceRouting`][gumbel_moe.routing.ExpertChoiceRouting]: in its own order), zeros in the empty rows.

    **Raises:** `ValueError` when `tokens` has not `n` rows, `capacity` is no positive int, or an expert has more kept
    datapoints than rows. Under `jit`, where the last cannot be seen, such datapoints are missing from the buffers, and
    [`combine`][gumbel_moe.routing.combine] gives NaN for them. `TypeError` when `routing` is no router's result.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SwitchRouter, combine, dispatch
    >>> routing = SwitchRouter(capacity=2)(jax.random.key(0), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    >>> buffers = dispatch(jnp.array([[1.0], [2.0], [3.0]]), routing, capacity=2)
    >>> buffers[..., 0].tolist()
    [[1.0, 3.0], [2.0, 0.0]]
    >>> combine(buffers, routing)[:, 0].tolist()
    [1.0, 2.0, 3.0]

    ```
    """
    tokens = as_array("tokens", tokens)
    n, _ = _sizes(routing)
    if tokens.ndim == 0 or tokens.shape[0] != n:
        raise ValueError(f"tokens must have {n} rows, one per datapoint of routing, got shape {tokens.shape}")
    capacity = check_positive_int("capacity", capacity)
    if isinstance(routing, ExpertChoiceRouting):
        rows = routing.datapoint.shape[1]
        if rows > capacity:
            raise ValueError(f"capacity must be at least {rows}, the places per expert in routing, got {capacity}")
        return _gather_chosen(tokens, routing, capacity)
    _check_places(routing, capacity)
    return _gather(tokens, routing, capacity)


def combine(
    buffers: ArrayLike,
    routing: Routing | ExpertChoiceRouting,
    *,
    gated: bool = False,
    weighted: bool = False,
    each: bool = False,
) -> Array:
    """The experts' outputs back in the order of the batch: the inverse of [`dispatch`][gumbel_moe.routing.dispatch].

    A datapoint of several experts gets the sum over those that keep it.

    **Arguments:**

    - `buffers`: `(k, capacity, ...)`, floating point, of any trailing shape; differentiable.
    - `routing`: the one that `dispatch` was given.
    - `gated`: whether to multiply every row by its gate, which is differentiable. A datapoint of an
      [`ExpertChoiceRouting`][gumbel_moe.routing.ExpertChoiceRouting] gets the sum over its experts, so there the gates
      are usually wanted.
    - `weighted`: whether to multiply every row by its importance weight instead. Of a weighted router the result is an
      unbiased estimate of the output of *all* experts, mixed by their probabilities, and so is its gradient, also in
      the logits, as of [`mixture_output`][gumbel_moe.routing.mixture_output].
    - `each`: whether to leave the rows of several experts apart, `(n, m, ...)`: for a loss under each of them.

    **Returns:** `(n, ...)`: the row of every kept datapoint, zeros for one that was skipped or left out. NaN for a kept
    datapoint that has no row because its expert has more of them than `capacity`, where that could not raise.

    **Raises:** `ValueError` when the shape of `buffers` does not fit `routing`, an expert has more kept datapoints
    than rows (not under `jit`), rows are to be both `gated` and `weighted`, or `weighted` or apart for an
    `ExpertChoiceRouting`; `TypeError` when `buffers` are not floating point, or `routing` is no router's result.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import ExpertChoiceRouter, combine, dispatch
    >>> routing = ExpertChoiceRouter(capacity=1)(jax.random.key(0), jnp.array([[2.0, 2.0], [0.0, 0.0]]))
    >>> buffers = dispatch(jnp.array([10.0, 20.0]), routing, capacity=1)
    >>> combine(buffers, routing, gated=True).tolist()  # datapoint 0 has both experts, datapoint 1 none
    [10.0, 0.0]

    ```
    """
    buffers = as_array("buffers", buffers)
    _, k = _sizes(routing)
    if buffers.ndim < 2 or buffers.shape[0] != k:
        raise ValueError(f"buffers must have shape ({k}, capacity, ...), one per expert, got {buffers.shape}")
    if not jnp.issubdtype(buffers.dtype, jnp.floating):
        raise TypeError(f"buffers must be floating point, got dtype {buffers.dtype}")
    if gated and weighted:
        raise ValueError("combine takes gated or weighted, got both")
    if isinstance(routing, ExpertChoiceRouting):
        if weighted or each:
            raise ValueError("an ExpertChoiceRouting has no weights, and no row for each expert of a datapoint")
        rows = routing.datapoint.shape[1]
        if buffers.shape[1] < rows:
            raise ValueError(f"buffers must have at least {rows} rows per expert, as routing has, got {buffers.shape}")
        return _sum_experts(buffers, routing, gated)
    _check_places(routing, buffers.shape[1])
    return _scatter_back(buffers, routing, gated, weighted, each)


@partial(jax.jit, static_argnames="capacity")
def _gather(tokens: Array, routing: Routing, capacity: int) -> Array:
    n, k = _sizes(routing)
    if n == 0:  # JAX refuses to gather from no rows
        return jnp.zeros((k, capacity, *tokens.shape[1:]), tokens.dtype)
    expert, place, _ = _places(routing, capacity)
    source = jnp.full((k, capacity), n, jnp.int32)
    datapoint = jnp.broadcast_to(beside(jnp.arange(n, dtype=jnp.int32), expert), expert.shape)
    source = source.at[expert, place].set(datapoint, mode="drop")
    return tokens.at[source].get(mode="fill", fill_value=0)


@partial(jax.jit, static_argnames="capacity")
def _gather_chosen(tokens: Array, routing: ExpertChoiceRouting, capacity: int) -> Array:
    empty = ((0, 0), (0, capacity - routing.datapoint.shape[1]))
    source = jnp.pad(_chosen(routing), empty, constant_values=tokens.shape[0])
    return tokens.at[source].get(mode="fill", fill_value=0)


@partial(jax.jit, static_argnames=("gated", "weighted", "each"))
def _scatter_back(buffers: Array, routing: Routing, gated: bool, weighted: bool, each: bool) -> Array:
    expert, place, lost = _places(routing, buffers.shape[1])
    rows = buffers.at[expert, place].get(mode="fill", fill_value=0)
    if gated or weighted:
        rows = rows * _beside(routing.gate if gated else carrying_p(routing), rows)
    rows = jnp.where(_beside(routing.kept, rows), rows, 0)
    rows = jnp.where(_beside(lost, rows), jnp.nan, rows)
    return rows if each or routing.experts_per_datapoint is None else jnp.sum(rows, axis=1)


@partial(jax.jit, static_argnames="gated")
def _sum_experts(buffers: Array, routing: ExpertChoiceRouting, gated: bool) -> Array:
    buffers = buffers[:, : routing.datapoint.shape[1]]
    if gated:
        buffers = buffers * _beside(routing.gate, buffers)
    total = jnp.zeros((routing.log_probs.shape[0], *buffers.shape[2:]), buffers.dtype)
    return total.at[_chosen(routing)].add(buffers, mode="drop")


def _sizes(routing: Routing | ExpertChoiceRouting) -> tuple[int, int]:
    if not isinstance(routing, Routing | ExpertChoiceRouting):
        raise TypeError(f"routing must be a Routing or an ExpertChoiceRouting, got {type(routing).__name__}")
    if routing.log_probs.ndim != 2:
        raise ValueError(
            f"routing must be of one batch, log_probs of shape (n, k), got {routing.log_probs.shape}; use jax.vmap"
        )
    n, k = routing.log_probs.shape
    return n, k


def _beside(factor: Array, rows: Array) -> Array:
    """`factor` with axes of size 1 appended, to multiply or mask `rows`."""
    factor = factor if factor.dtype == bool else factor.astype(rows.dtype)
    return factor.reshape(factor.shape + (1,) * (rows.ndim - factor.ndim))


def _chosen(routing: ExpertChoiceRouting) -> Array:
    """`(k, places)` datapoints, out of range where a place is empty: -1 would count from the end."""
    return jnp.where(routing.datapoint < 0, routing.log_probs.shape[0], routing.datapoint)


def _places(routing: Routing, capacity: int) -> tuple[Array, Array, Array]:
    """Expert and row of every datapoint in the buffers, out of range for none, and which kept ones are lost: `(n,)`, or
    `(n, m)` of several experts.
    """
    k = routing.log_probs.shape[1]
    handled = routing.kept & (routing.expert >= 0)
    queue = jnp.where(handled, routing.expert, k)
    place = places_in_queues(queue.reshape(-1), k).reshape(queue.shape)
    lost = routing.kept & ~(handled & (place < capacity))
    return queue, jnp.where(handled, place, capacity), lost


def _check_places(routing: Routing, capacity: int) -> None:
    """Raise when a kept datapoint finds no row, where that can be seen."""
    if is_traced(routing.expert, routing.kept):
        return
    # In NumPy: inside somebody's `jit`, JAX would trace even these constants.
    expert, kept = np.asarray(routing.expert), np.asarray(routing.kept)
    if (expert < 0).any():
        raise ValueError("routing holds no assignment (expert -1): its logits were NaN or left no feasible one")
    largest = np.bincount(expert[kept], minlength=1).max()
    if largest > capacity:
        raise ValueError(
            f"capacity must hold the kept datapoints of every expert, up to {largest}, got {capacity} rows"
        )
