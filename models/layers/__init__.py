"""Layers to copy into networks of your own."""

from models.layers.grouped import route_in_groups
from models.layers.moe import MoELayer, Routed
from models.layers.together import route_together

__all__ = ["MoELayer", "Routed", "route_in_groups", "route_together"]
