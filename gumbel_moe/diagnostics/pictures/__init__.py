"""Pictures of the diagnostics; they need matplotlib, and draw without a screen."""

# ruff: noqa: E402
from gumbel_moe._optional import need

need("matplotlib", "a picture")  # before what imports it, so that its absence is one clear line

from gumbel_moe.diagnostics.pictures._co_assignment import draw_co_assignment
from gumbel_moe.diagnostics.pictures._comparison import draw_comparison
from gumbel_moe.diagnostics.pictures._forest import draw_forest
from gumbel_moe.diagnostics.pictures._routing import draw_routing, draw_weights
from gumbel_moe.diagnostics.pictures._style import write_png
from gumbel_moe.diagnostics.pictures._variance import draw_variance
from gumbel_moe.diagnostics.pictures._verdicts import draw_verdicts

__all__ = [
    "draw_co_assignment",
    "draw_comparison",
    "draw_forest",
    "draw_routing",
    "draw_variance",
    "draw_verdicts",
    "draw_weights",
    "write_png",
]
