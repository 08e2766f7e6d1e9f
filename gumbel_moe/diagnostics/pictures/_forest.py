"""Biases around 0, with intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import norm

from gumbel_moe.diagnostics.pictures._style import BAD, FAINT, GOOD, INK, figure_of, write_png


def draw_forest(
    summary: pd.DataFrame, passed: bool, limit: float, path: str | Path | None = None, *, most: int = 30
) -> Figure:
    """The `most` coordinates of the largest z-scores, in the order of the pytree, each in its own standard deviations.

    The thick line is the middle half of what the bias may be, the thin one goes `limit` standard errors to both sides:
    a bias is found where it misses 0. The grey bar is what would have been found with probability 0.99.
    """
    z = np.abs(summary["z"].to_numpy())
    order = np.argsort(-np.where(np.isnan(z), np.inf, z), kind="stable")[:most]
    shown = summary.iloc[np.sort(order)]
    figure, (ax,) = figure_of(7, 1.6 + 0.22 * len(shown))
    # Coordinates without spread are shown in units of what their bias may be.
    unit = np.where(shown["sd"] > 0, shown["sd"], np.where(shown["detectable"] > 0, shown["detectable"], 1))
    bias, error, detectable = (shown[name].to_numpy() / unit for name in ("bias", "se", "detectable"))
    place = np.arange(len(shown))[::-1]
    found = ~(np.abs(shown["z"].to_numpy()) <= limit)
    colours = [BAD if bad else GOOD for bad in found]
    ax.barh(place, 2 * detectable, left=-detectable, height=0.7, color=FAINT, alpha=0.35, linewidth=0)
    ax.hlines(place, bias - limit * error, bias + limit * error, colors=colours, linewidth=1)
    half = norm.ppf(0.75) * error
    ax.hlines(place, bias - half, bias + half, colors=colours, linewidth=3.5)
    ax.scatter(bias, place, s=14, c=colours, zorder=3)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(place, list(shown.index))
    ax.set_ylim(-0.7, len(shown) - 0.3)
    ax.set_xlabel("bias, in standard deviations of one draw", fontsize=9, color=INK)
    title = "no bias found" if passed else "failed"
    few = f"the {len(shown)} of {len(summary):,} coordinates with" if len(shown) < len(summary) else "all coordinates,"
    ax.set_title(
        f"{title}: {few} {'the largest z-scores' if len(shown) < len(summary) else 'their intervals'}",
        fontsize=10,
        color=GOOD if passed else BAD,
        fontweight="bold",
    )
    handles = [
        Line2D([], [], color=GOOD, marker="o", markersize=4, linewidth=1, label="bias, with the interval of the test"),
        Line2D([], [], color=BAD, marker="o", markersize=4, linewidth=1, label="misses 0"),
        Patch(color=FAINT, alpha=0.35, label="what would be found with 99%"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return write_png(figure, path)
