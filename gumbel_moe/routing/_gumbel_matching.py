"""The Gumbel-Matching process as a router."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits, check_room
from gumbel_moe._floor import check_floor, floored, reweighted
from gumbel_moe._keys import check_key
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.routing._assemble import assemble, check_feasible
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True)
class GumbelMatchingRouter(CapacitatedRouter):
    r"""The best capacitated assignment of logits with Gumbel noise added: nobody is skipped.

    The process runs on $\log((1 - \epsilon) p_{ij} + \epsilon / k)$, with $\epsilon$ the `floor` and $k$ the number of
    experts that are allowed. With $q_{ij}$ the probability that datapoint $i$ goes to expert $j$ given the noise of all
    others, the weight is

    $$w_i = \frac{p_{i z_i}}{q_{i z_i}},$$

    and $E[w_i 1(z_i = j)] = p_{ij}$. See [`GumbelMatching`][gumbel_moe.distributions.GumbelMatching] for the
    distribution.

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1, with `sum(capacity) >= n`.
    - `corrected`: False gives all datapoints the weight 1 instead, which is biased; for comparison.
    - `floor`: $\epsilon$, at least 0 and below 1. 0 is the paper's process, whose weights have wild tails where a sharp
      router wants more of an expert than it holds: who is crowded out has a large $p$ and a tiny $q$. A floor lets
      others than the most eager come, and bounds the weights in practice (the documentation has the measurements).

    A call takes a JAX `key`, `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a `mask`
    `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing]. The
    weights are unbiased for the pairs that some feasible assignment contains; a pair that forbidden experts rule out
    altogether never occurs, whatever its $p_{ij}$.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, for capacities that
    cannot hold `n` datapoints, a floor out of range, for logits without exactly two axes, NaN, `+inf`, a datapoint with
    every expert forbidden, or that leave no feasible assignment; `TypeError` for logits that are not floating point.
    Under `jit` NaN logits and infeasible ones give NaN and expert -1 for the whole batch.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import GumbelMatchingRouter, load
    >>> routing = GumbelMatchingRouter(capacity=3)(jax.random.key(0), jnp.array([[9.0, 0.0]] * 6))
    >>> load(routing).tolist()
    [3, 3]

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, *Unbiased Gradient Estimation with Balanced Assignments for Mixtures of
    Experts*, arXiv 2109.11817 (2021).
    """

    corrected: bool = True
    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "floor", check_floor(self.floor))

    @property
    def weighted(self) -> bool:
        """Whether the draws are `corrected` by importance weights."""
        return self.corrected

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """Draw a [`Routing`][gumbel_moe.routing.Routing] for `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        places = self._places(logits.shape[1])
        check_room(np.asarray(places), logits.shape[0], present)
        return check_feasible(_draw(check_key(key), logits, present, places, self.corrected, self.floor))


@partial(jax.jit, static_argnames=("places", "corrected", "floor"))
def _draw(
    key: Array, logits: Array, present: Array | None, places: tuple[int, ...], corrected: bool, floor: float
) -> Routing:
    drawn_from = floored(logits, floor)
    process = GumbelMatching(drawn_from, places, mask=present)
    if not corrected:
        return assemble(logits, process.sample(key), present)
    expert, weight = process.sample_with_weights(key)
    return assemble(logits, expert, present, weight=reweighted(weight, logits, drawn_from, expert, floor))
