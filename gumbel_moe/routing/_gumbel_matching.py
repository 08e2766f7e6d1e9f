"""The Gumbel-Matching process as a router."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._floor import check_floor, floored, reweighted
from gumbel_moe._keys import check_key
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.routing._assemble import assemble, check_feasible
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._several import check_places_for_all
from gumbel_moe.routing._several_draws import inclusion_weights
from gumbel_moe.routing._several_matched import matched


@dataclass(frozen=True, repr=False)
class GumbelMatchingRouter(CapacitatedRouter):
    r"""The best capacitated assignment of logits with Gumbel noise added: nobody is skipped.

    The process runs on $\log((1 - \epsilon) p_{ij} + \epsilon / k)$, with $\epsilon$ the `floor` and $k$ the number of
    experts that are allowed. With $q_{ij}$ the probability that datapoint $i$ goes to expert $j$ given the noise of all
    others, the weight is

    $$w_i = \frac{p_{i z_i}}{q_{i z_i}},$$

    and $E[w_i 1(z_i = j)] = p_{ij}$. See [`GumbelMatching`][gumbel_moe.distributions.GumbelMatching] for the
    distribution.

    With `experts_per_datapoint` $m \ge 2$, every datapoint has the set $S_i$ of $m$ experts, and
    $\sum_i \sum_{j \in S_i} s_{ij}$ is the largest, with $s$ the floored logits $a'$ with noise. With $D$ the
    [exchange distances][gumbel_moe.matching.exchange_distances] of $s$,

    $$w_{ij} = \frac{p_{ij}}{q_{ij}}, \qquad q_{ij} = 1 - \exp(-e^{a'_{ij} - \tau_{ij}}), \qquad
    \tau_{ij} = \max_{l \notin S_i} (s_{il} - D_{lj}),$$

    where $q_{ij}$ is the probability that $j$ is among the experts of $i$ given all noise but $G_{ij}$, and
    $E[w_{ij} 1(j \in S_i)] = p_{ij}$. The weights of pairs are products of two, with heavy tails. The theory page of
    the documentation derives it. No formula is known for the probability of such an assignment as a whole, so that
    there is no distribution of it here.

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1, with `sum(capacity) >= n`; for several experts with
      `sum(minimum(capacity, n)) >= n * m`.
    - `corrected`: False gives all datapoints the weight 1 instead, which is biased; for comparison. Of several experts
      each has the weight 1, and the sum of a datapoint's weights is $m$.
    - `floor`: $\epsilon$, at least 0 and below 1. 0 is the paper's process, whose weights have wild tails where a sharp
      router wants more of an expert than it holds: who is crowded out has a large $p$ and a tiny $q$. A floor lets
      others than the most eager come, and bounds the weights in practice (the documentation has the measurements).
    - `experts_per_datapoint`: $m$, in arrays `(n, m)`. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key`, `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a `mask`
    `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing]. The
    weights are unbiased for the pairs that some feasible assignment contains; a pair that forbidden experts rule out
    altogether never occurs, whatever its $p_{ij}$.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, for capacities that
    cannot hold `n` datapoints, a floor out of range, more experts per datapoint than there are, for logits without
    exactly two axes, NaN, `+inf`, a datapoint with every expert forbidden, or that leave no feasible assignment;
    `TypeError` for logits that are not floating point. Under `jit` NaN logits and infeasible ones give NaN and expert
    -1 for the whole batch.

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
        n, k = logits.shape
        number, places = self._number(k), self._places(k)
        check_places_for_all(places, n, present, number)
        key, settings = check_key(key), (places, self.corrected, self.floor)
        if number > 1:
            return check_feasible(_draw_several(key, logits, present, *settings, number))
        return self._as_asked(check_feasible(_draw(key, logits, present, *settings)))


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


@partial(jax.jit, static_argnames=("places", "corrected", "floor", "number"))
def _draw_several(
    key: Array,
    logits: Array,
    present: Array | None,
    places: tuple[int, ...],
    corrected: bool,
    floor: float,
    number: int,
) -> Routing:
    expert, log_q = matched(key, floored(logits, floor), present, np.asarray(places), number)
    weight, pair_weight = inclusion_weights(logits, log_q, expert) if corrected else (None, None)
    return assemble(logits, expert, present, weight=weight, pair_weight=pair_weight)
