"""The routers by name: what each is, and what it needs. Without JAX, so that a program can read its arguments first."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Kind = Literal["weighted", "uncorrected", "biased"]


class RouterEntry(NamedTuple):
    """A row of the table of routers, [`ROUTERS`][gumbel_moe.routing.ROUTERS]."""

    made_by: str
    """The name of its class in `gumbel_moe.routing`."""
    kind: Kind
    """`weighted`: draws with importance weights, unbiased; `uncorrected`: the same draws without them; `biased`: it
    multiplies outputs by a gate, or is biased in another way by design."""
    limited: bool = True
    """Whether it has a capacity, its first argument."""
    stateful: bool = False
    """Whether it carries a state from batch to batch, with `init` and `update`."""
    one_expert: bool = True
    """Whether every datapoint has one expert, or as many as `experts_per_datapoint` asks for, and it returns a
    [`Routing`][gumbel_moe.routing.Routing]."""


ROUTERS: Mapping[str, RouterEntry] = MappingProxyType(
    {
        "independent": RouterEntry("IndependentRouter", "weighted", limited=False),
        "skip": RouterEntry("SkipRouter", "weighted"),
        "gumbel_matching": RouterEntry("GumbelMatchingRouter", "weighted"),
        "skip_uncorrected": RouterEntry("SkipRouter", "uncorrected"),
        "gumbel_matching_uncorrected": RouterEntry("GumbelMatchingRouter", "uncorrected"),
        "switch": RouterEntry("SwitchRouter", "biased"),
        "base": RouterEntry("BaseRouter", "biased"),
        "sinkhorn": RouterEntry("SinkhornRouter", "biased"),
        "expert_choice": RouterEntry("ExpertChoiceRouter", "biased", one_expert=False),
        "loss_free": RouterEntry("LossFreeRouter", "biased", stateful=True),
        "quantile_balancing": RouterEntry("QuantileBalancingRouter", "biased", stateful=True),
    }
)
"""Every router by the name that programs take, with `-` or `_`."""


def names(*kinds: Kind, one_expert: bool | None = None) -> tuple[str, ...]:
    """Those of the routers of some kinds."""
    return tuple(
        name for name, entry in ROUTERS.items() if entry.kind in kinds and one_expert in (None, entry.one_expert)
    )


def router_name(name: str) -> str:
    """The name as in the table, from one with `-` or `_`; `ValueError` lists the names there are."""
    found = name.replace("-", "_")
    if found not in ROUTERS:
        raise ValueError(f"unknown router {name!r}; choose from {', '.join(ROUTERS)}")
    return found
