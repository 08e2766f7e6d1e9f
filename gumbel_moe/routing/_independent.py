"""Independent draws: no capacity, weight 1."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._floor import check_floor, floored, reweighted
from gumbel_moe._keys import check_key
from gumbel_moe._logits import centred
from gumbel_moe.routing._assemble import assemble
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._several import SeveralExperts
from gumbel_moe.routing._several_draws import inclusion_weights, largest_perturbed


@dataclass(frozen=True, repr=False)
class IndependentRouter(SeveralExperts):
    r"""Every datapoint draws its expert, $z_i \sim \mathrm{Categorical}(p_i)$ with $p_i = \mathrm{softmax}(a_i)$.

    The plain weighted draw: everyone is kept, all weights are 1, and nothing limits how many datapoints an expert has.

    With `experts_per_datapoint` $m \ge 2$, a datapoint draws a set $S_i$ of $m$ experts without replacement: those of
    the $m$ largest $a_{ij} + G_{ij}$, with $G$ independent standard Gumbel noise. With $\kappa_i$ the next largest,

    $$w_{ij} = \frac{p_{ij}}{q_{ij}}, \qquad q_{ij} = P(a_{ij} + G_{ij} > \kappa_i) = 1 - \exp(-e^{a_{ij} -
    \kappa_i}),$$

    and $E[w_{ij} 1(j \in S_i)] = p_{ij}$; for $m = k$ the weights are the probabilities.

    **Arguments:**

    - `floor`: $\epsilon$, at least 0 and below 1: draw from $p'_{ij} = (1 - \epsilon) p_{ij} + \epsilon / k$ instead,
      with weights $p_{i z_i} / p'_{i z_i}$, at most $1 / (1 - \epsilon)$. `k` counts the experts that are allowed.
    - `experts_per_datapoint`: $m$, in arrays `(n, m)`. None: one, in arrays `(n,)`; 1: the same with an axis more.

    **Arguments** of a call:

    - `key`: a JAX key.
    - `logits`: `(n, k)`, unnormalised log-probabilities $a$; `-inf` forbids an expert for a datapoint.
    - `mask`: `(n,)` bool, false for datapoints that take no part; see [`Routing`][gumbel_moe.routing.Routing].

    **Returns:** a [`Routing`][gumbel_moe.routing.Routing].

    **Raises:** `ValueError` for a floor out of range, more experts per datapoint than there are, for logits without
    exactly two axes, NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits that are not
    floating point. Under `jit` NaN logits give NaN.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import IndependentRouter
    >>> routing = IndependentRouter()(jax.random.key(0), jnp.zeros((4, 2)))
    >>> routing.weight.tolist()
    [1.0, 1.0, 1.0, 1.0]

    ```

    Reference: for several experts, N. Duffield, C. Lund, M. Thorup, *Priority Sampling for Estimation of Arbitrary
    Subset Sums*, Journal of the ACM 54 (2007); W. Kool, H. van Hoof, M. Welling, *Stochastic Beams and Where to Find
    Them: The Gumbel-Top-k Trick for Sampling Sequences Without Replacement*, arXiv 1903.06059 (2019).
    """

    weighted: ClassVar[bool] = True

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "floor", check_floor(self.floor))

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """Draw a [`Routing`][gumbel_moe.routing.Routing] for `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        number = self._number(logits.shape[1])
        if number > 1:
            return _draw_several(check_key(key), logits, present, self.floor, number)
        return self._as_asked(_draw(check_key(key), logits, present, self.floor))


@partial(jax.jit, static_argnames="floor")
def _draw(key: Array, logits: Array, present: Array | None, floor: float) -> Routing:
    drawn_from = floored(logits, floor)
    expert = jax.random.categorical(key, centred(drawn_from), axis=1).astype(jnp.int32)
    ones = jnp.ones(expert.shape, logits.dtype)
    return assemble(logits, expert, present, weight=reweighted(ones, logits, drawn_from, expert, floor))


@partial(jax.jit, static_argnames=("floor", "number"))
def _draw_several(key: Array, logits: Array, present: Array | None, floor: float, number: int) -> Routing:
    expert, log_q = largest_perturbed(key, floored(logits, floor), number)
    return assemble(logits, expert, present, weight=inclusion_weights(logits, log_q, expert))
