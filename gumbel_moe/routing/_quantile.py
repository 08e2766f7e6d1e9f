"""Quantile balancing: the bias that gives every expert its share of the last batch."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._experts import best_expert
from gumbel_moe.routing._bias import BiasRouter, biased, check_bias, check_routing, check_score, route_by_bias
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True, repr=False)
class QuantileBalancingRouter(BiasRouter):
    r"""Top-1 routing by biased scores, $z_i = \arg\max_j (s_{ij} + b_j)$, with the bias set by quantiles.

    The bias never sees a gradient. After a batch, with $\alpha_i$ the second largest of $s_{ij} + b_j$ over $j$ (what
    an expert must exceed to win the datapoint, if it does not have it already),

    $$b_j \leftarrow \mathrm{quantile}_{i} \Big( \alpha_i - s_{ij},\; \frac{c_j}{\sum_l c_l} \Big),$$

    then centred to mean 0: at these cutoffs expert $j$ would win just its share of the batch, $1/k$ for equal
    capacities. Where that is a whole number, the quantile lies halfway between two datapoints. This is one round of
    alternating minimisation of the dual of the balanced assignment problem. Routing uses the bias of earlier batches,
    so it does not look ahead. Datapoints beyond an expert's capacity are dropped by position in the batch (the source
    drops none: give room for all). Weights are 1, and 0 for the dropped. The gate is the unbiased
    $p_{i z_i} = \mathrm{softmax}(a_i)_{z_i}$.

    The bias is a state that the caller carries:

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import QuantileBalancingRouter, load
    >>> router = QuantileBalancingRouter(capacity=4)
    >>> logits = jnp.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    >>> bias = router.init(num_experts=2)
    >>> routing = router(jax.random.key(0), logits, bias)
    >>> bias = router.update(bias, routing)
    >>> load(routing).tolist(), load(router(jax.random.key(0), logits, bias)).tolist()
    ([4, 0], [2, 2])

    ```

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1.
    - `score`: what the bias is added to, `"softmax"` (the probabilities $p_{ij}$) or `"log_softmax"` (their logarithms,
      which also tell datapoints apart where probabilities have run into 0 or 1).
    - `experts_per_datapoint`: $m$, for the $m$ best experts by biased score in arrays `(n, m)`; from two on their gates
      are normalised over those chosen. Then $\alpha_i$ is the score next to those, and the quantile that of
      $m c_j / \sum_l c_l$, at most 1. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint) optionally a
    `bias` `(k,)`, zero if None, and a `mask` `(n,)` bool, false for datapoints that take no part; it returns a
    [`Routing`][gumbel_moe.routing.Routing]. Both scores are functions of `routing.log_probs`, from which `update` takes
    them.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, a score of another name,
    more experts per datapoint than there are, a bias of another shape or not finite, for logits without exactly two
    axes, NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits that are not floating point.
    Under `jit` NaN in logits or bias gives NaN.

    Reference: Jianlin Su, kexue.fm/archives/11619 (2026); tried at scale by the Marin project,
    openathena.ai/blog/quantile-balancing (2026), and in the Kimi K3 report (2026), section 2.3.3.
    """

    score: Literal["softmax", "log_softmax"] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_score(self.score, ("softmax", "log_softmax"))

    def _route(
        self, logits: Array, bias: Array, places: tuple[int, ...], present: Array | None, number: int
    ) -> Routing:
        return _route(logits, bias, places, present, self.score, number)

    def update(self, bias: ArrayLike, routing: Routing) -> Array:
        """The bias `(k,)` after the batch that gave `routing`; pure, the old bias is not changed."""
        log_probs = jax.lax.stop_gradient(check_routing(routing).log_probs)
        bias = check_bias(bias, log_probs)
        n, k = log_probs.shape
        if n == 0:
            return bias
        number = routing.experts_per_datapoint or 1
        loads = self._fair_loads(n, k, routing.mask, number)
        depth = int(self._fair_loads(n, k, each=number).max()) + 2  # of all: how many take part may be traced
        return _balanced(bias, log_probs, loads, self.score, depth, number)


def _scores(log_probs: Array, score: str) -> Array:
    return jnp.exp(log_probs) if score == "softmax" else log_probs


@partial(jax.jit, static_argnames=("places", "score", "number"))
def _route(
    logits: Array, bias: Array, places: tuple[int, ...], present: Array | None, score: str, number: int
) -> Routing:
    log_probs = jax.nn.log_softmax(logits, axis=1)
    scores = _scores(log_probs, score)
    return route_by_bias(logits, scores, jnp.exp(log_probs), bias, places, present, log_probs, number)


@partial(jax.jit, static_argnames=("score", "depth", "number"))
def _balanced(bias: Array, log_probs: Array, loads: Array, score: str, depth: int, number: int) -> Array:
    scores = _scores(log_probs, score)
    cutoff = _largest_but(number, biased(scores, log_probs, bias))
    missing = _finite(jnp.where(jnp.isneginf(log_probs), jnp.inf, cutoff[:, None] - scores))
    # Sorting would push NaN to the far end, out of sight.
    new = jnp.where(jnp.isnan(missing).any(), jnp.nan, _quantiles(missing, loads, depth))
    nobody = jnp.all(jnp.isneginf(log_probs))
    return jnp.where(nobody, bias, (new - jnp.mean(new)).astype(bias.dtype))


def _largest_but(number: int, values: Array) -> Array:
    """`(n,)` largest of every row but for the `number` largest, `-inf` when there are no more entries."""
    if number > 1:
        return jax.lax.top_k(values, number + 1)[0][:, -1] if number < values.shape[1] else values[:, 0] - jnp.inf
    is_best = best_expert(values)[:, None] == jnp.arange(values.shape[1], dtype=jnp.int32)
    return jnp.max(jnp.where(is_best, -jnp.inf, values), axis=1)


def _finite(values: Array) -> Array:
    """Infinite entries at the nearest finite one of their column: a datapoint that must, or must not, come anyway."""
    known = jnp.isfinite(values)
    low = jnp.min(jnp.where(known, values, jnp.inf), axis=0)
    high = jnp.max(jnp.where(known, values, -jnp.inf), axis=0)
    some = jnp.any(known, axis=0)
    return jnp.clip(values, jnp.where(some, low, 0), jnp.where(some, high, 0))


def _quantiles(values: Array, below: Array, depth: int) -> Array:
    """`(k,)` number in every column that has `below[j]` of the entries below it, among its `depth` smallest.

    Halfway between two entries where `below[j]` is whole, so that none is on the border.
    """
    n = values.shape[0]
    place = jnp.clip(below.astype(values.dtype) - 0.5, 0, n - 1)
    rank = jnp.floor(place)
    lower = rank.astype(jnp.int32)[None]
    # The smallest few only: a full sort would cost twenty times as much where experts are many.
    ordered = -jax.lax.top_k(-values.T, min(depth, n))[0].T
    left = jnp.take_along_axis(ordered, lower, axis=0)[0]
    right = jnp.take_along_axis(ordered, jnp.minimum(lower + 1, n - 1), axis=0)[0]
    return left + (place - rank) * (right - left)
