"""One look for all pictures: small multiples, one panel per router."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures import write_png

INK = "#333333"
FAINT = "#c8c8c8"
COLOURS = {"weighted": "#0072b2", "uncorrected": "#cc79a7", "biased": "#d55e00", "reference": "#666666"}
"""By kind of router, told apart by readers with any colour vision (Okabe and Ito)."""
KINDS = {
    "weighted": "weighted draws (unbiased)",
    "uncorrected": "the same draws without weights",
    "biased": "biased by design",
    "reference": "reference",
}


class Named(Protocol):
    """What has a panel."""

    router: str
    kind: str


def panels(outcomes: Sequence[Named], title: str, xlabel: str, *, height: float = 2.3) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per outcome, at most four in a row, titled by router in the colour of its kind."""
    columns = min(4, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure = Figure(figsize=(max(3.1 * columns, 6.2), height * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    figure.suptitle(title, fontsize=13, color=INK)
    for ax, outcome in zip(axes, outcomes, strict=False):
        ax.set_title(outcome.router.replace("_", " "), fontsize=10, color=COLOURS[outcome.kind], fontweight="bold")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=INK)
    for place, ax in enumerate(axes):
        if place >= len(outcomes):
            ax.remove()
        elif place + columns >= len(outcomes):
            ax.tick_params(labelbottom=True)  # the last one of its column, though others share its axis
            ax.set_xlabel(xlabel, fontsize=9, color=INK)
    return figure, axes[: len(outcomes)]


def save(figure: Figure, handles: Sequence[Artist], path: Path) -> Path:
    """Put the legend below, and write a PNG whole or not at all."""
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    write_png(figure, path)
    return path
