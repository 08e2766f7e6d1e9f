"""Switch routing: the best expert of every datapoint, while it has room."""

from dataclasses import dataclass
from functools import partial

import jax
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._experts import best_expert, best_experts
from gumbel_moe.routing._assemble import first_come
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True, repr=False)
class SwitchRouter(CapacitatedRouter):
    r"""Top-1 routing, $z_i = \arg\max_j a_{ij}$, with datapoints beyond an expert's capacity dropped by position.

    First come, first kept, in the order of the batch. The expert's output is multiplied by the gate
    $p_{i z_i} = \mathrm{softmax}(a_i)_{z_i}$, through which the router learns. Weights are 1, and 0 for the dropped.
    Train it together with [`load_balancing_loss`][gumbel_moe.routing.load_balancing_loss].

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1.
    - `experts_per_datapoint`: $m$, for the $m$ most probable experts of every datapoint in arrays `(n, m)`, each kept
      or dropped by itself. From two on their gates are normalised over those chosen, $p_{ij} / \sum_{l \in S_i}
      p_{il}$, as in GShard and Mixtral. None: one, in arrays `(n,)`; 1: the same with an axis more.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a
    `mask` `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing].
    Among equal logits the first expert wins.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, more experts per
    datapoint than there are, for logits without exactly two axes, NaN, `+inf` or a datapoint with every expert
    forbidden; `TypeError` for logits that are not floating point. Under `jit` NaN logits give NaN.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SwitchRouter
    >>> routing = SwitchRouter(capacity=1)(jax.random.key(0), jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    >>> routing.expert.tolist(), routing.kept.tolist()
    ([0, 0, 1], [True, False, True])

    ```

    Reference: W. Fedus, B. Zoph, N. Shazeer, *Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity*, arXiv 2101.03961 (2021), section 2; for several experts, D. Lepikhin et al., *GShard: Scaling
    Giant Models with Conditional Computation and Automatic Sharding*, arXiv 2006.16668 (2020), section 2.2, which
    serves all first choices before the second ones, and A. Q. Jiang et al., *Mixtral of Experts*, arXiv 2401.04088
    (2024), section 2.1, which drops nobody.
    """

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        number, places = self._number(logits.shape[1]), self._places(logits.shape[1])
        if number > 1:
            return _route_several(logits, places, present, number)
        return self._as_asked(_route(logits, places, present))


@partial(jax.jit, static_argnames="places")
def _route(logits: Array, places: tuple[int, ...], present: Array | None) -> Routing:
    return first_come(logits, best_expert(logits), places, present)


@partial(jax.jit, static_argnames=("places", "number"))
def _route_several(logits: Array, places: tuple[int, ...], present: Array | None, number: int) -> Routing:
    return first_come(logits, best_experts(jax.lax.stop_gradient(logits), number), places, present)
