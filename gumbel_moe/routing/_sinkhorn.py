"""Sinkhorn routing: the best expert under an entropic transport plan with balanced loads."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits, check_positive, check_positive_int
from gumbel_moe._experts import best_expert, best_experts
from gumbel_moe._logits import centred
from gumbel_moe._varying import vary_like
from gumbel_moe.routing._assemble import first_come, without_absent
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True, repr=False)
class SinkhornRouter(CapacitatedRouter):
    r"""Top-1 routing under a balanced transport plan, $z_i = \arg\max_j \Pi_{ij}$.

    With temperature $\tau$, the plan is the entropic optimal transport from datapoints to experts,

    $$\max_\Pi \sum_{ij} \Pi_{ij} a_{ij} - \tau \sum_{ij} \Pi_{ij} \log \Pi_{ij}
    \quad \text{subject to} \quad \sum_j \Pi_{ij} = \frac1n, \quad \sum_i \Pi_{ij} = \frac{c_j}{\sum_l c_l},$$

    found by Sinkhorn's algorithm in the log domain. The best experts under the plan are nearly, not exactly, balanced;
    what is beyond an expert's capacity is dropped by position in the batch. The expert's output is multiplied by the
    gate $p_{i z_i} = \mathrm{softmax}(a_i)_{z_i}$; no gradient flows through the plan. Weights are 1, and 0 for the
    dropped.

    Taken from S-BASE in the paper: the regularised plan in place of the exact assignment of
    [`BaseRouter`][gumbel_moe.routing.BaseRouter], the best expert under it, and the gate on the unbalanced logits. The
    paper balances equally; unequal capacities, and the fixed number of iterations, are this library's.

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1.
    - `temperature`: weight $\tau$ of the entropy, in nats, positive. Near 0 the plan is the exact assignment, for which
      Sinkhorn's algorithm needs more iterations.
    - `iterations`: of Sinkhorn's algorithm, at least 1.
    - `experts_per_datapoint`: $m$, for the $m$ best experts under the plan in arrays `(n, m)`; from two on their gates
      are normalised over those chosen. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a
    `mask` `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing].

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, a temperature or number
    of iterations that is not positive, more experts per datapoint than there are, for logits without exactly two axes,
    NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits that are not floating point. Under
    `jit` NaN logits give NaN for the whole batch.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SinkhornRouter
    >>> logits = jnp.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    >>> SinkhornRouter(capacity=2)(jax.random.key(0), logits).expert.tolist()
    [0, 0, 1, 1]

    ```

    Reference: A. Clark et al., *Unified Scaling Laws for Routed Language Models*, arXiv 2202.01169 (2022), on
    Sinkhorn-BASE; M. Cuturi, *Sinkhorn Distances*, arXiv 1306.0895 (2013).
    """

    temperature: float = 1.0
    iterations: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "temperature", check_positive("temperature", self.temperature))
        object.__setattr__(self, "iterations", check_positive_int("iterations", self.iterations))

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        n, k = logits.shape
        loads, number = self._fair_loads(n, k, present), self._number(k)
        settings = (self._places(k), loads, self.temperature, self.iterations)
        return self._as_asked(_route(logits, present, *settings, number))


@partial(jax.jit, static_argnames=("places", "iterations", "number"))
def _route(
    logits: Array,
    present: Array | None,
    places: tuple[int, ...],
    loads: Array,
    temperature: float,
    iterations: int,
    number: int,
) -> Routing:
    scores = centred(jax.lax.stop_gradient(logits)) / temperature
    plan = log_plan(scores, loads, iterations, present)
    expert = best_expert(plan) if number == 1 else best_experts(plan, number)
    return first_come(logits, expert, places, present, failed=jnp.isnan(plan).any())


@partial(jax.jit, static_argnames="iterations")
def log_plan(scores: Array, loads: ArrayLike, iterations: int, present: Array | None = None) -> Array:
    r"""`(n, k)` logarithm of the plan for `scores` $a / \tau$; rows are exact, columns as the iterations leave them."""
    n, k = scores.shape
    if n == 0:
        return scores
    target = jnp.log(jnp.asarray(loads, scores.dtype))

    def balance(_: int, prices: Array) -> Array:
        wanted = without_absent(jax.nn.log_softmax(scores - prices, axis=1), present)
        load = jax.nn.logsumexp(wanted, axis=0)
        # An expert that is forbidden to all cannot be filled at any price.
        return jnp.where(jnp.isneginf(load), 0, prices + load - target)

    prices = jax.lax.fori_loop(0, iterations, balance, vary_like((scores, target, present), jnp.zeros(k, scores.dtype)))
    return jax.nn.log_softmax(scores - prices, axis=1) - jnp.log(jnp.asarray(n, scores.dtype))
