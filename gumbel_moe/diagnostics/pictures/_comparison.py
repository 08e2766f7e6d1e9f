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

_NOTHING = 1e-6  # of the largest eigenvalue: what is below is rounding
_TEXT = 11
_COSTS = {
    "relative_per_second": ("D", "times seconds of a draw"),
    "relative_per_evaluation": ("s", "times evaluations"),
}


def draw_comparison(result: "VarianceComparison", path: str | Path | None = None) -> Figure:
    """Above, the variance over that of the reference, with intervals, and what it costs: further left is better. Below,
    the eigenvalues of the covariance, without those that are only rounding.
    """
    high = 0.9 + 0.45 * len(result.summary)
    figure, (above, below) = figure_of(8.5, high + 4.2, 2, heights=(high, 3.0))
    colours = [LINES[i % len(LINES)] for i in range(len(result.summary))]
    _ratios(above, result, colours)
    _eigenvalues(below, result, colours)
    for ax in (above, below):
        ax.tick_params(labelsize=_TEXT)
    return write_png(figure, path)


def _ratios(ax: Axes, result: "VarianceComparison", colours: list[str]) -> None:
    """One row per estimator, from the top down, with its variance in figures at the end."""
    table = result.summary
    place = np.arange(len(table))[::-1]
    middle, low, high = (_inverse(table[f"relative{end}"]) for end in ("", "_high", "_low"))
    ax.hlines(place, low, high, colors=colours, linewidth=3)
    ax.scatter(middle, place, s=50, c=colours, zorder=3, label="variance")
    for column, (marker, said) in _COSTS.items():
        if column in table:
            cost = _inverse(table[column])
            ax.scatter(cost, place, s=42, marker=marker, facecolors="none", edgecolors=INK, zorder=4, label=said)
    ax.axvline(1, color=INK, linewidth=0.8)
    ax.set_yticks(place, [str(name) for name in table.index])
    ax.set_ylim(-0.6, len(table) - 0.4)
    for at, ratio, trace in zip(place, middle, table["trace"], strict=True):
        said = f"{trace:.3g}" if np.isnan(ratio) else f"{trace:.3g} (\N{MULTIPLICATION SIGN} {ratio:.3g})"
        ax.annotate(
            said,
            (1.01, at),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=_TEXT - 1,
            color=INK,
            annotation_clip=False,
        )
    ax.set_xlabel(f"over that of {result.reference}, {result.interval:.0%} intervals", fontsize=_TEXT, color=INK)
    if (middle[np.isfinite(middle)] > 0).all():
        logarithmic(ax, "x")
    ax.legend(fontsize=_TEXT - 1, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _eigenvalues(ax: Axes, result: "VarianceComparison", colours: list[str]) -> None:
    for (name, spectrum), colour in zip(result.spectra.items(), colours, strict=True):
        values = spectrum.eigenvalues
        values = values[values > _NOTHING * np.nanmax(values, initial=0)]
        if len(values):
            number = np.arange(len(values)) + 1
            ax.plot(number, values, color=colour, marker="o", markersize=4, linewidth=1.5, label=name)
    logarithmic(ax, "y")
    ax.set_xlabel("directions, from the one that varies most", fontsize=_TEXT, color=INK)
    ax.set_ylabel("variance along it", fontsize=_TEXT, color=INK)
    if ax.lines:
        ax.legend(fontsize=_TEXT, frameon=False)


def _inverse(column: ArrayLike) -> np.ndarray:
    """What is finite of it; NaN, which is not drawn, else."""
    with np.errstate(divide="ignore"):
        inverse = 1 / np.asarray(column, np.float64)
    return np.where(np.isfinite(inverse), inverse, np.nan)
