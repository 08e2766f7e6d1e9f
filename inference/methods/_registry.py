"""The methods by name."""

from functools import partial

from gumbel_moe.routing import (
    BaseRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    LossFreeRouter,
    QuantileBalancingRouter,
    SinkhornRouter,
    SkipRouter,
    SwitchRouter,
)
from inference.methods._drawn import UncorrectedMethod, WeightedMethod
from inference.methods._gated import BiasedScoreMethod, ExpertChoiceMethod, GatedMethod, best, best_by_sigmoid
from inference.methods._method import Method

_BEST = "gate (softmax) times output of the best expert, nobody dropped"
_BEST_SIGMOID = "gate (sigmoid) times output of the best expert, nobody dropped"

_ALL = (
    WeightedMethod("independent", make_router=lambda capacity: IndependentRouter(), limited=False),
    WeightedMethod("skip", make_router=SkipRouter),
    WeightedMethod("gumbel_matching", make_router=GumbelMatchingRouter),
    UncorrectedMethod("skip_uncorrected", make_router=partial(SkipRouter, corrected=False)),
    UncorrectedMethod("gumbel_matching_uncorrected", make_router=partial(GumbelMatchingRouter, corrected=False)),
    GatedMethod("switch", own_way=_BEST, make_router=SwitchRouter, at_test=best, balancing=0.01),
    GatedMethod("switch_no_balancing", own_way=_BEST, make_router=SwitchRouter, at_test=best),
    GatedMethod("base", own_way=_BEST_SIGMOID, make_router=BaseRouter, at_test=best_by_sigmoid),
    GatedMethod("sinkhorn", own_way=_BEST, make_router=SinkhornRouter, at_test=best),
    ExpertChoiceMethod("expert_choice"),
    BiasedScoreMethod("loss_free", make_router=LossFreeRouter),
    BiasedScoreMethod("quantile_balancing", make_router=QuantileBalancingRouter),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Every method, in the order of the tables."""


def find_method(name: str) -> Method:
    """The method of that name, with `_` or `-`; `ValueError` lists the names there are."""
    name = name.replace("-", "_")
    if name not in METHODS:
        raise ValueError(f"unknown router {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]
