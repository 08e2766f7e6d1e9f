"""One look for all pictures: small multiples, one panel per router."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gumbel_moe.diagnostics.pictures import write_png

INK = "#333333"
FAINT = "#c8c8c8"
GREY = "#888888"
COLOURS = {"weighted": "#0072b2", "uncorrected": "#cc79a7", "biased": "#d55e00", "reference": "#666666"}
"""By kind of router, told apart by readers with any colour vision (Okabe and Ito)."""
REGIONS: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
"""How to show an array of colours among the axes of a picture."""
KINDS = {
    "weighted": "weighted draws (unbiased)",
    "uncorrected": "the same draws without weights",
    "biased": "biased by design",
    "reference": "reference",
}


Curves = Iterable[tuple[Sequence[int] | np.ndarray, np.ndarray]]
"""Steps, and a value at each."""


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


def draw_curve(
    ax: Axes, kind: str, at: Sequence[int] | np.ndarray, median: np.ndarray, band: np.ndarray, others: Curves
) -> None:
    """A median, the band of the middle half around it, and faintly the medians of others behind."""
    for steps, values in others:
        ax.plot(steps, values, color=FAINT, linewidth=0.8, zorder=1)
    ax.fill_between(at, *band, color=COLOURS[kind], alpha=0.25, linewidth=0, zorder=2)
    ax.plot(at, median, color=COLOURS[kind], linewidth=1.8, zorder=3)
    ax.margins(x=0)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.7)


def curve_legend(half: str, others: str) -> list[Artist]:
    """What the band and the curves behind are."""
    return [Patch(color=GREY, alpha=0.3, label=half), Line2D([], [], color=FAINT, linewidth=0.8, label=others)]


def draw_bars(ax: Axes, kind: str, wanted: np.ndarray, demand: np.ndarray, load: np.ndarray, mean: float) -> np.ndarray:
    """What each expert computes, and hatched what else it was asked for, `by_rank`; the places of the bars."""
    demand, load = by_rank(wanted, demand, load)
    places = np.arange(len(load)) + 1
    ax.bar(places, load, color=COLOURS[kind], width=0.75)
    ax.bar(places, demand - load, bottom=load, color="white", edgecolor=COLOURS[kind], hatch="////", width=0.75)
    ax.axhline(mean, color=INK, linewidth=1, linestyle="--")
    ax.set_xticks(places)
    return places


def bar_legend(surplus: str, mean: str) -> list[Artist]:
    """What the bars and the line across them are."""
    return [
        Patch(color=GREY, label="computed"),
        Patch(facecolor="white", edgecolor=GREY, hatch="////", label=surplus),
        Line2D([], [], color=INK, linewidth=1, linestyle="--", label=mean),
    ]


def by_rank(wanted: np.ndarray, *parts: np.ndarray) -> list[np.ndarray]:
    """Means over starts `(starts, k) -> (k,)`, experts from the most wanted to the least within each start."""
    order = np.argsort(-wanted, axis=1)
    return [np.take_along_axis(part, order, axis=1).mean(axis=0) for part in parts]


def save(figure: Figure, handles: Sequence[Artist], path: Path) -> Path:
    """Put the legend below, and write a PNG whole or not at all."""
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    write_png(figure, path)
    return path
