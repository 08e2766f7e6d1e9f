"""The pictures of a comparison (the toy's fit and routing, learning curves, expert load) and of the latent routing."""

from inference.pictures._curves import draw_curves
from inference.pictures._latent_routing import draw_bounds, draw_latent_fit, draw_shares
from inference.pictures._load import draw_load
from inference.pictures._toy import draw_toy

__all__ = ["draw_bounds", "draw_curves", "draw_latent_fit", "draw_load", "draw_shares", "draw_toy"]
