"""Switch routing: the best expert of every datapoint, while it has room."""

from dataclasses import dataclass
from functools import partial

import jax
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._experts import best_expert
from gumbel_moe.routing._assemble import first_come
from gumbel_moe.routing._capacitated import CapacitatedRouter
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True)
class SwitchRouter(CapacitatedRouter):
    r"""Top-1 routing, $z_i = \arg\max_j a_{ij}$, with datapoints beyond an expert's capacity dropped by position.

    First come, first kept, in the order of the batch. The expert's output is multiplied by the gate
    $p_{i z_i} = \mathrm{softmax}(a_i)_{z_i}$, through which the router learns. Weights are 1, and 0 for the dropped.
    Train it together with [`load_balancing_loss`][gumbel_moe.routing.load_balancing_loss].

    **Arguments:**

    - `capacity`: an int or `(k,)` ints, at least 1.

    A call takes a JAX `key` (not used), `logits` `(n, k)` (`-inf` forbids an expert for a datapoint), and optionally a
    `mask` `(n,)` bool, false for datapoints that take no part; it returns a [`Routing`][gumbel_moe.routing.Routing].
    Among equal logits the first expert wins.

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, for logits without
    exactly two axes, NaN, `+inf` or a datapoint with every expert forbidden; `TypeError` for logits that are not
    floating point. Under `jit` NaN logits give NaN.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import SwitchRouter
    >>> routing = SwitchRouter(capacity=1)(jax.random.key(0), jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    >>> routing.expert.tolist(), routing.kept.tolist()
    ([0, 0, 1], [True, False, True])

    ```

    Reference: W. Fedus, B. Zoph, N. Shazeer, *Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity*, arXiv 2101.03961 (2021), section 2.
    """

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)`."""
        logits, present = check_logits(logits, mask, exact_rank=2)
        return _route(logits, self._places(logits.shape[1]), present)


@partial(jax.jit, static_argnames="places")
def _route(logits: Array, places: tuple[int, ...], present: Array | None) -> Routing:
    return first_come(logits, best_expert(logits), places, present)
