"""Routers: logits to the experts of a batch, weighted or gated, and buffers that take datapoints there and back."""

from gumbel_moe._router_table import ROUTERS, RouterEntry
from gumbel_moe.routing._balance_loss import load_balancing_loss
from gumbel_moe.routing._base_layers import BaseRouter
from gumbel_moe.routing._capacity_for import capacity_for
from gumbel_moe.routing._dispatch import combine, dispatch
from gumbel_moe.routing._expert_choice import ExpertChoiceRouter
from gumbel_moe.routing._gumbel_matching import GumbelMatchingRouter
from gumbel_moe.routing._independent import IndependentRouter
from gumbel_moe.routing._loss_free import LossFreeRouter
from gumbel_moe.routing._make import Router, make_router
from gumbel_moe.routing._mixture_output import mixture_output
from gumbel_moe.routing._one_batch import as_one_batch
from gumbel_moe.routing._quantile import QuantileBalancingRouter
from gumbel_moe.routing._record import ExpertChoiceRouting, Routing, load
from gumbel_moe.routing._sinkhorn import SinkhornRouter
from gumbel_moe.routing._skip import SkipRouter
from gumbel_moe.routing._switch import SwitchRouter
from gumbel_moe.routing._without_replacement import draw_without_replacement

__all__ = [
    "ROUTERS",
    "BaseRouter",
    "ExpertChoiceRouter",
    "ExpertChoiceRouting",
    "GumbelMatchingRouter",
    "IndependentRouter",
    "LossFreeRouter",
    "QuantileBalancingRouter",
    "Router",
    "RouterEntry",
    "Routing",
    "SinkhornRouter",
    "SkipRouter",
    "SwitchRouter",
    "as_one_batch",
    "capacity_for",
    "combine",
    "dispatch",
    "draw_without_replacement",
    "load",
    "load_balancing_loss",
    "make_router",
    "mixture_output",
]
