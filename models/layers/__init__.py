"""Layers to copy into networks of your own."""

from models.layers.moe import MoELayer, Routed

__all__ = ["MoELayer", "Routed"]
