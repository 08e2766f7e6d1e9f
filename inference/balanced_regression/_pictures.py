"""The pictures: which cultivar the balanced posterior gives them, and what each model thinks of the groups' sizes."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from xarray import DataTree

from gumbel_moe._whole_file import whole_file
from inference.shared.style import INK, save
from models.data import RESPONSES, Wines

_GROUPS = ("#0072b2", "#d55e00", "#009e73")
_MODELS = ("#888888", "#cc79a7", "#e69f00", "#000000")


def draw_wines(wines: Wines, fits: dict[str, Any], path: Path) -> Path:
    """One panel per response with the balanced fit's lines, and one of the sizes, which are points when known."""
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(RESPONSES) + 1)
    balanced = {name: np.asarray(value) for name, value in fits["balanced"].items()}
    share = balanced["membership"].mean(axis=(0, 1))
    x, y = np.asarray(wines.x), np.asarray(wines.y)
    grid = np.linspace(x.min(), x.max(), 50)
    for d, (ax, name) in enumerate(zip(axes, RESPONSES, strict=False)):
        right = share.argmax(axis=1) == wines.truth
        for j, colour in enumerate(_GROUPS):
            drawn = balanced["intercept"][..., j, d, None] + balanced["slope"][..., j, d, None] * grid
            low, high = np.quantile(drawn, [0.05, 0.95], axis=(0, 1))
            ax.fill_between(grid, low, high, color=colour, alpha=0.25, linewidth=0)
            ax.plot(grid, drawn.mean(axis=(0, 1)), color=colour, linewidth=1.2)
            mine = wines.truth == j
            ax.scatter(x[mine & right], y[mine & right, d], s=12, color=colour, linewidths=0)
            ax.scatter(x[mine & ~right], y[mine & ~right, d], s=26, color=colour, marker="x", linewidths=1.2)
        ax.set_title(name.replace("_", " "), fontsize=10, color=INK)
        ax.set_xlabel("total phenols (standardised)", fontsize=9, color=INK)
    axes[0].set_ylabel("response (standardised)", fontsize=9, color=INK)
    _draw_sizes(axes[-1], wines, fits)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=INK)
    handles = [Line2D([], [], color=c, marker="o", label=f"cultivar {j + 1}") for j, c in enumerate(_GROUPS)]
    handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label="most probable cultivar is wrong"))
    return save(figure, handles, path)


def draw_slopes(posterior: DataTree, path: Path) -> Path:
    """ArviZ's forest plot of the balanced fit's slopes, one line per chain: where chains have met, they agree."""
    from arviz_plots import plot_forest  # only here: it takes a second or two to import

    slopes = posterior["posterior"].to_dataset()[["slope"]].reset_coords(drop=True)
    slopes = slopes.drop_vars(["slope_dim_0", "slope_dim_1"], errors="ignore")
    slopes = slopes.rename_dims(slope_dim_0="cultivar", slope_dim_1="response")
    slopes = slopes.assign_coords(cultivar=["1", "2", "3"], response=["flavanoids", "colour", "proline"])
    tree = DataTree.from_dict({"posterior": slopes})
    forest = plot_forest(tree, backend="matplotlib", figure_kwargs={"figsize": (9, 5)})
    with whole_file(path) as part:
        forest.savefig(part, format="png", dpi=110)
    return path


def _draw_sizes(ax: Any, wines: Wines, fits: dict[str, Any]) -> None:
    """Mean and central 90% of how many unlabelled wines each group has."""
    places = np.arange(len(wines.sizes))
    for shift, (name, colour) in enumerate(zip(fits, _MODELS, strict=False)):
        sizes = np.asarray(fits[name]["membership"]).sum(axis=2).reshape(-1, len(places))
        mean, (low, high) = sizes.mean(axis=0), np.quantile(sizes, [0.05, 0.95], axis=0)
        spread = np.maximum([mean - low, high - mean], 0)
        ax.errorbar(places + 0.17 * (shift - 1.5), mean, spread, fmt="o", ms=4, color=colour, label=name)
    ax.hlines(wines.sizes, places - 0.35, places + 0.35, color=INK, linewidth=1, zorder=0, label="true")
    ax.set_xticks(places, [f"cultivar {j + 1}" for j in places])
    ax.set_ylim(0, 1.75 * max(wines.sizes))
    ax.set_title("unlabelled wines in each group", fontsize=10, color=INK)
    ax.legend(fontsize=7, frameon=False, loc="upper right")
