"""One look for all pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from gumbel_moe._whole_file import whole_file

INK = "#333333"
FAINT = "#c8c8c8"
GOOD, BAD = "#0072b2", "#d55e00"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
"""Told apart by readers with any colour vision (Okabe and Ito)."""


def figure_of(
    width: float, height: float, rows: int = 1, columns: int = 1, *, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure that needs no screen, and its panels; `heights` is how high the rows are beside each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights).ravel().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=INK)
    return figure, axes


def logarithmic(ax: Axes, letter: str) -> None:
    """A logarithmic x or y axis, with plain numbers at 1, 2 and 5 times the powers of ten, or at 1 where it is long."""
    axis = ax.xaxis if letter == "x" else ax.yaxis
    ax.set(**{f"{letter}scale": "log"})
    low, high = axis.get_view_interval()
    decades = math.log10(high / low) if 0 < low < high else 1
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def write_png(figure: Figure, path: str | Path | None, *, dpi: int = 130) -> Figure:
    """Write a PNG whole or not at all, or nothing if there is no path; the figure comes back."""
    if path is None:
        return figure
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=dpi)
    return figure
