"""The skip process as a router."""

from dataclasses import dataclass
from functools import partial

import jax
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._floor import check_floor, floored, reweighted
from gumbel_moe._keys import check_key
from gumbel_moe.distributions import SkipAssignment
from gumbel_moe.routing._assemble import assemble
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._several_draws import keep_random, without_replacement
from gumbel_moe.routing._unordered_set import of_two


@dataclass(frozen=True, repr=False)
class SkipRouter(CapacitatedRouter):
    r"""Independent draws, of which every expert keeps a uniformly random subset up to its capacity.

    With $n_j$ draws of expert $j$ and its capacity $c_j$, a kept datapoint has the weight

    $$w_i = \frac{n_{z_i}}{\min(n_{z_i}, c_{z_i})},$$

    a skipped one the weight 0, and $E[w_i 1(z_i = j)] = p_{ij}$. See
    [`SkipAssignment`][gumbel_moe.distributions.SkipAssignment] for the distribution.

    With `experts_per_datapoint` $m \ge 2$, a datapoint draws $m$ experts without replacement, as for
    [`IndependentRouter`][gumbel_moe.routing.IndependentRouter]. Each expert again keeps a random subset of those that
    drew it, so that a datapoint may lose some of its experts, and the weight where it is kept is that of the draw times
    $n_j / \min(n_j, c_j)$; the weight of a pair, where both keep it, takes the factors of both.

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1; their sum may be below `n`.
    - `corrected`: False gives kept datapoints the weight 1 instead, which is biased; for comparison. Of several experts
      each has the weight 1, and the sum of a datapoint's weights is up to $m$.
    - `floor`: $\epsilon$, at least 0 and below 1: draw from $p'_{ij} = (1 - \epsilon) p_{ij} + \epsilon / k$ instead,
      with weights times $p_{i z_i} / p'_{i z_i}$. `k` counts the experts that are allowed.
    - `experts_per_datapoint`: $m$, in arrays `(n, m)`. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key`, `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a `mask`
    `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing].

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, a floor out of range,
    more experts per datapoint than there are, for logits without exactly two axes, NaN, `+inf` or a datapoint with
    every expert forbidden; `TypeError` for logits that are not floating point. Under `jit` NaN logits give NaN.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SkipRouter, load
    >>> routing = SkipRouter(capacity=2)(jax.random.key(0), jnp.array([[9.0, 0.0]] * 6))
    >>> load(routing).tolist(), sorted(routing.weight.tolist())
    ([2, 0], [0.0, 0.0, 0.0, 0.0, 3.0, 3.0])

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, *Unbiased Gradient Estimation with Balanced Assignments for Mixtures of
    Experts*, arXiv 2109.11817 (2021).
    """

    corrected: bool = True
    floor: float = 0.0

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
        number, settings = self._number(logits.shape[1]), (self._places(logits.shape[1]), self.corrected, self.floor)
        if number > 1:
            return _draw_several(check_key(key), logits, present, *settings, number)
        return self._as_asked(_draw(check_key(key), logits, present, *settings))


@partial(jax.jit, static_argnames=("places", "corrected", "floor"))
def _draw(
    key: Array, logits: Array, present: Array | None, places: tuple[int, ...], corrected: bool, floor: float
) -> Routing:
    drawn_from = floored(logits, floor)
    process = SkipAssignment(drawn_from, places, mask=present)
    value, weight = process.sample_with_weights(key)
    expert = process.expert(value)
    weight = reweighted(weight, logits, drawn_from, expert, floor) if corrected else None
    return assemble(logits, expert, present, kept=process.kept(value), weight=weight)


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
    draw_key, order_key = jax.random.split(key)
    expert, weight, pair_weight = without_replacement(draw_key, logits, floor, number)
    kept, stands_for = keep_random(order_key, expert, present, places)
    if not corrected:
        return assemble(logits, expert, present, kept=kept)
    # Given the draws, experts keep independently of each other.
    stands_for = stands_for.astype(logits.dtype)
    weight, pair_weight = weight * stands_for, pair_weight * of_two(stands_for)
    return assemble(logits, expert, present, kept=kept, weight=weight, pair_weight=pair_weight)
