"""BASE layers: the best balanced assignment of the logits themselves."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._absent import capacity_with_absent, with_absent
from gumbel_moe._checks import check_logits
from gumbel_moe._experts import at_expert, at_experts
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing._assemble import assemble, check_feasible
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._several import check_places_for_all


@dataclass(frozen=True, repr=False)
class BaseRouter(CapacitatedRouter):
    r"""The best capacitated assignment, without noise:

    $$z = \arg\max_z \sum_i a_{i z_i} \quad \text{subject to} \quad \#\{i : z_i = j\} \le c_j .$$

    Nobody is skipped, and weights are 1. The expert's output is multiplied by the gate $\sigma(a_{i z_i})$, the
    logistic function of the logit. The paper assigns so in training, with equal capacities of `n / k`, and takes the
    best expert of every datapoint at test time.

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1, with `sum(capacity) >= n`; for several experts with
      `sum(minimum(capacity, n)) >= n * m`.
    - `experts_per_datapoint`: $m$, for the best assignment of $m$ different experts to every datapoint in arrays
      `(n, m)`, each with its own gate as above (the paper has one). None: one, in arrays `(n,)`; 1: the same with an
      axis more.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a
    `mask` `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing].

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, for capacities that
    cannot hold `n` datapoints, more experts per datapoint than there are, for logits without exactly two axes, NaN,
    `+inf`, a datapoint with every expert forbidden, or that leave no feasible assignment; `TypeError` for logits that
    are not floating point. Under `jit` NaN logits and infeasible ones give NaN and expert -1 for the whole batch.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import BaseRouter
    >>> routing = BaseRouter(capacity=1)(jax.random.key(0), jnp.array([[3.0, 0.0], [2.0, 0.0]]))
    >>> routing.expert.tolist(), routing.gate.round(3).tolist()[1]
    ([0, 1], 0.5)

    ```

    Reference: M. Lewis, S. Bhosale, T. Dettmers, N. Goyal, L. Zettlemoyer, *BASE Layers: Simplifying Training of Large,
    Sparse Models*, arXiv 2103.16716 (2021), section 3.
    """

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        number, places = self._number(logits.shape[1]), self._places(logits.shape[1])
        check_places_for_all(places, logits.shape[0], present, number)
        if number > 1:
            return check_feasible(_route_several(logits, present, places, number))
        return self._as_asked(check_feasible(_route(logits, present, places)))


@partial(jax.jit, static_argnames="places")
def _route(logits: Array, present: Array | None, places: tuple[int, ...]) -> Routing:
    scores, capacity = jax.lax.stop_gradient(logits), np.asarray(places)
    if present is not None:
        scores, capacity = with_absent(scores, present), capacity_with_absent(capacity, logits.shape[0])
    expert = solve_matching(scores, capacity).assignment
    return assemble(logits, expert, present, gate=jax.nn.sigmoid(at_expert(logits, expert)))


@partial(jax.jit, static_argnames=("places", "number"))
def _route_several(logits: Array, present: Array | None, places: tuple[int, ...], number: int) -> Routing:
    scores, capacity = jax.lax.stop_gradient(logits), np.asarray(places)
    if present is not None:
        scores = with_absent(scores, present, number)
        capacity = capacity_with_absent(capacity, logits.shape[0], number)
    expert = solve_matching(scores, capacity, experts_per_datapoint=number).assignment
    return assemble(logits, expert, present, gate=jax.nn.sigmoid(at_experts(logits, expert)))
