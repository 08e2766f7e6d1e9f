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
from gumbel_moe.routing._several_draws import without_replacement


@dataclass(frozen=True, repr=False)
class IndependentRouter(SeveralExperts):
    r"""Every datapoint draws its expert, $z_i \sim \mathrm{Categorical}(p_i)$ with $p_i = \mathrm{softmax}(a_i)$.

    The plain weighted draw: everyone is kept, all weights are 1, and nothing limits how many datapoints an expert has.

    With `experts_per_datapoint` $m \ge 2$, a datapoint draws $m$ experts in turn, each from what is left: a set $S_i$.
    With $P_i(S)$ its probability, in any order, and $P_i^{(j)}$ the same for draws from the experts without $j$,

    $$w_{ij} = p_{ij} \frac{P_i^{(j)}(S_i \setminus j)}{P_i(S_i)}, \qquad
    W_{ijl} = p_{ij} p_{il} \frac{P_i^{(jl)}(S_i \setminus \{j, l\})}{P_i(S_i)} ,$$

    the unordered set estimator: $E[w_{ij} 1(j \in S_i)] = p_{ij}$ and $E[W_{ijl} 1(j, l \in S_i)] = p_{ij} p_{il}$.
    $w_{ij}$ is the probability that $j$ came first, given the set, so that a datapoint's weights sum to 1 (with no
    `floor`); for $m = k$ they are the probabilities.

    For $m > 8$, where a set has too many subsets, $w_{ij} = p_{ij} / q_{ij}$ with $q_{ij} = 1 - \exp(-e^{a_{ij} -
    \kappa_i})$: the experts are those of the $m$ largest $a_{ij} + G_{ij}$, with $G$ independent standard Gumbel noise,
    and $\kappa_i$ is the next largest. The weights of pairs are then products.

    **Arguments:**

    - `floor`: $\epsilon$, at least 0 and below 1: draw from $p'_{ij} = (1 - \epsilon) p_{ij} + \epsilon / k$ instead,
      with weights $p_{i z_i} / p'_{i z_i}$, at most $1 / (1 - \epsilon)$. `k` counts the experts that are allowed. Of
      several experts $P_i$ is then that of draws from $p'_i$.
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

    Reference: for several experts, W. Kool, H. van Hoof, M. Welling, *Estimating Gradients for Discrete Random
    Variables by Sampling without Replacement*, arXiv 2002.06043 (2020), section 3; for more than eight, N. Duffield,
    C. Lund, M. Thorup, *Priority Sampling for Estimation of Arbitrary Subset Sums*, Journal of the ACM 54 (2007).
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
    expert, weight, pair_weight = without_replacement(key, logits, floor, number)
    return assemble(logits, expert, present, weight=weight, pair_weight=pair_weight)
