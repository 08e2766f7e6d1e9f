"""The methods by name."""

from functools import partial
from typing import Any

from gumbel_moe.routing import ROUTERS, make_router
from inference.training.methods._drawn import DrawnMethod, ExactMethod, StudentMethod, TwoDrawsMethod
from inference.training.methods._gated import ExpertChoiceMethod, GatedMethod, best, best_by_sigmoid
from inference.training.methods._method import Method

_BEST = "gate (softmax) times output of the best expert, nobody dropped"
_BEST_SIGMOID = "gate (sigmoid) times output of the best expert, nobody dropped"
_BEST_BIASED = "gate (unbiased) times output of the best expert by biased score, nobody dropped"
_PAPER = {"gumbel_matching": {"floor": 0.0}}  # routers by their own names are as their papers have them
# What differs from the gate by softmax and the best expert at test.
_GATED: dict[str, dict[str, Any]] = {
    "switch": {"balancing": 0.01},
    "base": {"own_way": _BEST_SIGMOID, "at_test": best_by_sigmoid},
}


def _method(name: str) -> Method:
    """How a router of the library's table is trained and compared."""
    entry, make = ROUTERS[name], partial(make_router, name, **_PAPER.get(name, {}))
    if entry.kind != "biased":
        return DrawnMethod(name=name, kind=entry.kind, make_router=make)
    if not entry.one_expert:
        return ExpertChoiceMethod(name=name, make_router=make)
    if entry.stateful:
        return GatedMethod(name=name, make_router=make, own_way=_BEST_BIASED)
    return GatedMethod(name=name, make_router=make, **{"own_way": _BEST, "at_test": best, **_GATED.get(name, {})})


_WITHOUT_BALANCING = GatedMethod(
    name="switch_no_balancing", make_router=partial(make_router, "switch"), own_way=_BEST, at_test=best
)
_FLOORED = partial(make_router, "gumbel_matching")  # with the router's own floor
_DEFENSIVE = make_router("gumbel_matching", 1).floor  # the same for those that have none by default
_PROCESSES = {"independent": partial(make_router, "independent"), "skip": partial(make_router, "skip")}
_CALMED: list[Method] = [
    *(
        StudentMethod(name=f"{name}_student", kind="weighted", make_router=make)
        for name, make in {**_PROCESSES, "gumbel_matching": partial(make_router, "gumbel_matching", floor=0.0)}.items()
    ),
    StudentMethod(
        name="skip_floored_student", kind="weighted", make_router=partial(make_router, "skip", floor=_DEFENSIVE)
    ),
    DrawnMethod(name="gumbel_matching_floored", kind="weighted", make_router=_FLOORED),
    StudentMethod(name="gumbel_matching_floored_student", kind="weighted", make_router=_FLOORED),
    TwoDrawsMethod(name="skip_two_draws", kind="weighted", make_router=_PROCESSES["skip"]),
]
_EXACT = ExactMethod(name="exact", kind="reference", make_router=_PROCESSES["independent"])
_PLAIN = [_method(name) for name in ROUTERS]
_PLAIN.insert([method.name for method in _PLAIN].index("switch") + 1, _WITHOUT_BALANCING)
_WEIGHTED = [method for method in _PLAIN if method.kind == "weighted"]

ROUTER_METHODS = tuple(method.name for method in _PLAIN)
"""Every router as its source has it: what a comparison of routers trains."""
ESTIMATOR_METHODS = (*(method.name for method in (_EXACT, *_WEIGHTED, *_CALMED)), "switch")
"""The weighted draws with all that calms them, between the exact gradient and a biased router."""
METHODS: dict[str, Method] = {method.name: method for method in (*_WEIGHTED, *_CALMED, *_PLAIN, _EXACT)}
"""Every method, in the order of the tables."""
