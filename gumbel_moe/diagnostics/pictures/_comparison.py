"""Estimators side by side."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gumbel_moe.diagnostics.pictures._style import INK, LINES, figure_of, logarithmic, write_png

if TYPE_CHECKING:
    from gumbel_moe.diagnostics._compare_variance import VarianceComparison


def draw_comparison(result: "VarianceComparison", path: str | Path | None = None) -> Figure:
    """The variance with intervals, what it costs in time, and the eigenvalues of the covariance."""
    table = result.summary
    figure, axes = figure_of(11, 2.4 + 0.25 * len(table), 1, 3)
    share = f"{result.interval:.0%} interval"
    names = [str(name) for name in table.index]
    _points(axes[0], f"variance (trace), {share}", table["trace"], table["trace_low"], table["trace_high"])
    axes[0].set_yticks(np.arange(len(names))[::-1], names)
    axes[1].set_yticks([])
    relative = [table[f"relative{end}"] for end in ("", "_low", "_high")]
    speed = (table["relative_per_second"] / table["relative"]).to_numpy()
    _points(axes[1], f"{result.reference}'s variance over this one's, {share}", *relative)
    place = np.arange(len(table))[::-1]
    axes[1].scatter(
        relative[0] * speed, place, s=26, marker="D", facecolors="none", edgecolors=INK, zorder=3, label="per second"
    )
    axes[1].axvline(1, color=INK, linewidth=0.8)
    axes[1].legend(fontsize=8, frameon=False)
    for (name, spectrum), colour in zip(result.spectra.items(), _colours(len(table)), strict=True):
        values = spectrum.eigenvalues[spectrum.eigenvalues > 0]
        if len(values):
            axes[2].plot(
                np.arange(len(values)) + 1, values, color=colour, marker=".", markersize=4, linewidth=1, label=name
            )
    logarithmic(axes[2], "y")
    axes[2].set_xlabel("eigenvalue of the covariance, by size", fontsize=9, color=INK)
    if axes[2].lines:
        axes[2].legend(fontsize=8, frameon=False)
    return write_png(figure, path)


def _colours(count: int) -> list[str]:
    return [LINES[i % len(LINES)] for i in range(count)]


def _points(ax: Axes, label: str, *numbers: ArrayLike) -> None:
    """Middles with their lower and upper ends, from the top down."""
    middle, low, high = (np.asarray(values, np.float64) for values in numbers)
    place = np.arange(len(middle))[::-1]
    colours = _colours(len(middle))
    ax.hlines(place, low, high, colors=colours, linewidth=2)
    ax.scatter(middle, place, s=22, c=colours, zorder=3)
    ax.set_ylim(-0.6, len(middle) - 0.4)
    ax.set_xlabel(label, fontsize=9, color=INK)
    if (middle[np.isfinite(middle)] > 0).all():
        logarithmic(ax, "x")
