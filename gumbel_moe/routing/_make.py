"""Routers from their names, and what a router is to those who call it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._router_table import ROUTERS, router_name
from gumbel_moe.routing._base_layers import BaseRouter
from gumbel_moe.routing._expert_choice import ExpertChoiceRouter
from gumbel_moe.routing._gumbel_matching import GumbelMatchingRouter
from gumbel_moe.routing._independent import IndependentRouter
from gumbel_moe.routing._loss_free import LossFreeRouter
from gumbel_moe.routing._quantile import QuantileBalancingRouter
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._sinkhorn import SinkhornRouter
from gumbel_moe.routing._skip import SkipRouter
from gumbel_moe.routing._switch import SwitchRouter

_CLASSES: dict[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (
        BaseRouter,
        ExpertChoiceRouter,
        GumbelMatchingRouter,
        IndependentRouter,
        LossFreeRouter,
        QuantileBalancingRouter,
        SinkhornRouter,
        SkipRouter,
        SwitchRouter,
    )
}


@runtime_checkable
class Router(Protocol):
    """A router of one expert for every datapoint, or a number of them, without a state: what losses and diagnostics
    take.

    A class of your own is one if it has this attribute and can be called like this.
    """

    @property
    def weighted(self) -> bool:
        """Whether its draws come with importance weights that make estimates unbiased."""
        ...

    def __call__(self, key: Array, logits: ArrayLike, *, mask: ArrayLike | None = None) -> Routing:
        """The [`Routing`][gumbel_moe.routing.Routing] of `logits` `(n, k)`, drawn by a JAX `key`."""
        ...


def make_router(name: str, capacity: int | Sequence[int] | None = None, **options: Any) -> Any:
    """The router of a name in the table [`ROUTERS`][gumbel_moe.routing.ROUTERS].

    **Arguments:**

    - `name`: as in the table, with `-` or `_`.
    - `capacity`: an int or `(k,)` ints, at least 1; not used by a router that has no limit.
    - `options`: what else its class takes, such as `experts_per_datapoint`.

    **Returns:** a router. Those that carry a state from batch to batch (`stateful` in the table) have `init` and
    `update`, and take the state as the third argument of a call.

    **Raises:** `ValueError` for an unknown name, for no capacity where one is needed, for `experts_per_datapoint` where
    experts choose, and whatever the class raises.

    ```python
    >>> from gumbel_moe.routing import ROUTERS, make_router
    >>> make_router("gumbel-matching", 8)
    GumbelMatchingRouter(capacity=8, corrected=True, floor=0.1)
    >>> [name for name, entry in ROUTERS.items() if entry.kind == "weighted"]
    ['independent', 'skip', 'gumbel_matching']

    ```
    """
    entry = ROUTERS[router_name(name)]
    made = _CLASSES[entry.made_by]
    if entry.kind == "uncorrected":  # the paper's, which have no floor
        options = {"corrected": False, "floor": 0.0, **options}
    if not entry.one_expert and options.pop("experts_per_datapoint", None) is not None:
        raise ValueError(
            f"experts_per_datapoint is not for the router {name!r}: its capacity says how many datapoints an expert "
            "takes, and with that how many experts a datapoint has in the mean"
        )
    if not entry.limited:
        return made(**options)
    if capacity is None:
        raise ValueError(f"capacity must be given for the router {name!r}, got None")
    return made(capacity, **options)
