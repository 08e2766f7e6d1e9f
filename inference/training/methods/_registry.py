"""The methods by name."""

from functools import partial
from typing import Any

from gumbel_moe.routing import ROUTERS, make_router
from inference.training.methods._drawn import DrawnMethod
from inference.training.methods._gated import ExpertChoiceMethod, GatedMethod, best, best_by_sigmoid
from inference.training.methods._method import Method

_BEST = "gate (softmax) times output of the best expert, nobody dropped"
_BEST_SIGMOID = "gate (sigmoid) times output of the best expert, nobody dropped"
_BEST_BIASED = "gate (unbiased) times output of the best expert by biased score, nobody dropped"
_GATED: dict[str, dict[str, Any]] = {
    "switch": {"own_way": _BEST, "at_test": best, "balancing": 0.01},
    "base": {"own_way": _BEST_SIGMOID, "at_test": best_by_sigmoid},
    "sinkhorn": {"own_way": _BEST, "at_test": best},
}


def _method(name: str) -> Method:
    """How a router of the library's table is trained and compared."""
    entry, make = ROUTERS[name], partial(make_router, name)
    if entry.kind != "biased":
        return DrawnMethod(name=name, kind=entry.kind, make_router=make)
    if not entry.one_expert:
        return ExpertChoiceMethod(name=name, make_router=make)
    if entry.stateful:
        return GatedMethod(name=name, make_router=make, own_way=_BEST_BIASED)
    return GatedMethod(name=name, make_router=make, **_GATED[name])


_WITHOUT_BALANCING = GatedMethod(
    name="switch_no_balancing", make_router=partial(make_router, "switch"), own_way=_BEST, at_test=best
)
_ALL = [_method(name) for name in ROUTERS]
_ALL.insert([method.name for method in _ALL].index("switch") + 1, _WITHOUT_BALANCING)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method, in the order of the tables."""
