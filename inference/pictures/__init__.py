"""The pictures of a comparison: the toy's fit and routing, learning curves, expert load; and of the wines."""

from inference.pictures._curves import draw_curves
from inference.pictures._load import draw_load
from inference.pictures._toy import draw_toy
from inference.pictures._wines import draw_slopes, draw_wines

__all__ = ["draw_curves", "draw_load", "draw_slopes", "draw_toy", "draw_wines"]
