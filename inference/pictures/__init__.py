"""The pictures: a comparison (the toy's fit and routing, learning curves, expert load), latent routing, the wines."""

from inference.pictures._curves import draw_curves
from inference.pictures._latent_routing import draw_bounds, draw_latent_fit, draw_shares
from inference.pictures._load import draw_load
from inference.pictures._toy import draw_toy
from inference.pictures._wines import draw_slopes, draw_wines

__all__ = [
    "draw_bounds",
    "draw_curves",
    "draw_latent_fit",
    "draw_load",
    "draw_shares",
    "draw_slopes",
    "draw_toy",
    "draw_wines",
]
