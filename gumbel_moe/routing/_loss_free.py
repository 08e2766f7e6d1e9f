"""Loss-free balancing: a bias per expert, nudged towards balance after every batch."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_positive
from gumbel_moe.routing._bias import BiasRouter, check_bias, check_routing, check_score, route_by_bias
from gumbel_moe.routing._record import Routing, count_all


@dataclass(frozen=True, repr=False)
class LossFreeRouter(BiasRouter):
    r"""Top-1 routing by biased scores, $z_i = \arg\max_j (s_{ij} + b_j)$, with the unbiased score as gate $s_{i z_i}$.

    The score $s_{ij}$ is the logistic function of the logit, as in the paper, or its softmax. The bias never sees a
    gradient. After a batch with $n_j$ datapoints at expert $j$, counted before any is dropped,

    $$b_j \leftarrow b_j + \gamma \, \mathrm{sign}\Big( \frac{n c_j}{\sum_l c_l} - n_j \Big),$$

    for equal capacities the sign of the mean load minus the load. Datapoints beyond an expert's capacity are dropped by
    position in the batch (the paper drops none: give room for all). Weights are 1, and 0 for the dropped.

    The bias is a state that the caller carries:

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import LossFreeRouter
    >>> router = LossFreeRouter(capacity=4, rate=0.5)
    >>> bias = router.init(num_experts=2)
    >>> routing = router(jax.random.key(0), jnp.array([[1.0, 0.0]] * 4), bias)
    >>> router.update(bias, routing).tolist()
    [-0.5, 0.5]

    ```

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1.
    - `rate`: step $\gamma$ of the bias per batch, in units of the score, positive.
    - `score`: `"sigmoid"` or `"softmax"`.
    - `experts_per_datapoint`: $m$, for the $m$ best experts by biased score in arrays `(n, m)`; from two on their gates
      are the scores' shares of the sum over those chosen. Expert $j$ is to get $m n c_j / \sum_l c_l$ datapoints, at
      most $n$. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint) optionally a
    `bias` `(k,)`, zero if None, and a `mask` `(n,)` bool, false for datapoints that take no part; it returns a
    [`Routing`][gumbel_moe.routing.Routing]. Its `log_prob` and `log_probs` are the softmax of the logits with either
    score.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, a rate that is not
    positive, a score of another name, more experts per datapoint than there are, a bias of another shape or not finite,
    for logits without exactly two axes, NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits
    that are not floating point. Under `jit` NaN in logits or bias gives NaN.

    Reference: L. Wang, H. Gao, C. Zhao, X. Sun, D. Dai, *Auxiliary-Loss-Free Load Balancing Strategy for
    Mixture-of-Experts*, arXiv 2408.15664 (2024), algorithm 1.
    """

    rate: float = 0.001
    score: Literal["sigmoid", "softmax"] = "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rate", check_positive("rate", self.rate))
        check_score(self.score, ("sigmoid", "softmax"))

    def _route(
        self, logits: Array, bias: Array, places: tuple[int, ...], present: Array | None, number: int
    ) -> Routing:
        return _route(logits, bias, places, present, self.score, number)

    def update(self, bias: ArrayLike, routing: Routing) -> Array:
        """The bias `(k,)` after the batch that gave `routing`; pure, the old bias is not changed."""
        log_probs = check_routing(routing).log_probs
        bias = check_bias(bias, log_probs)
        n, k = log_probs.shape
        wanted = self._fair_loads(n, k, routing.mask, routing.experts_per_datapoint or 1)
        return _nudged(bias, count_all(routing, jnp.asarray(True)), wanted, self.rate)


@partial(jax.jit, static_argnames=("places", "score", "number"))
def _route(
    logits: Array, bias: Array, places: tuple[int, ...], present: Array | None, score: str, number: int
) -> Routing:
    by_sigmoid = score == "sigmoid"
    scores = jax.nn.sigmoid(logits) if by_sigmoid else jax.nn.softmax(logits, axis=1)
    log_scores = jax.nn.log_sigmoid(logits) if by_sigmoid else jax.nn.log_softmax(logits, axis=1)
    return route_by_bias(logits, scores, scores, bias, places, present, log_scores, number)


@jax.jit
def _nudged(bias: Array, load: Array, wanted: Array, rate: float) -> Array:
    return bias + rate * jnp.sign(wanted.astype(bias.dtype) - load.astype(bias.dtype))
