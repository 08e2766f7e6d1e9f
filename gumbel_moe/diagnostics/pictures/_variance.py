"""Variance against a setting: capacity factor, sharpness of the router, or whatever a table has."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures._style import INK, LINES, figure_of, logarithmic, write_png


def draw_variance(
    table: pd.DataFrame,
    x: str,
    path: str | Path | None = None,
    *,
    panel: str | None = None,
    value: str = "trace",
    log: str = "y",
    xlabel: str | None = None,
    ylabel: str = "variance of the gradient (trace)",
) -> Figure:
    """One line per estimator, and a band between the columns `{value}_low` and `{value}_high` if the table has them.

    **Arguments:**

    - `table`: in long form, one row per setting and estimator: columns `estimator`, `x`, `value`, and `panel` if given.
    - `x`: the column along the axis, such as `capacity_factor` or `scale`.
    - `path`: where to write a PNG, if anywhere.
    - `panel`: a column whose values get a panel each, side by side.
    - `value`: the column drawn.
    - `log`: the axes with a logarithmic scale, of `""`, `"x"`, `"y"`, `"xy"`.
    - `xlabel`, `ylabel`: of the axes; the column's name for x if None.

    **Returns:** the matplotlib figure.

    **Raises:** `ValueError` when a column is missing, or `log` is another string.
    """
    if log not in ("", "x", "y", "xy"):
        raise ValueError(f"log must be '', 'x', 'y' or 'xy', got {log!r}")
    missing = {"estimator", x, value, *([panel] if panel else [])} - set(table.columns)
    if missing:
        raise ValueError(f"table has no column {', '.join(sorted(missing))}, only {', '.join(table.columns)}")
    parts = list(table.groupby(panel, sort=False)) if panel else [(None, table)]
    figure, axes = figure_of(max(3.4 * len(parts), 6), 3.6, 1, len(parts))
    for ax in axes[1:]:
        ax.sharey(axes[0])
    names = list(dict.fromkeys(table["estimator"]))
    bands = {f"{value}_low", f"{value}_high"} <= set(table.columns)
    for ax, (title, part) in zip(axes, parts, strict=True):
        for place, name in enumerate(names):
            own = part.loc[part["estimator"] == name].sort_values(by=x)
            colour = LINES[place % len(LINES)]
            label = name if ax is axes[0] else None
            ax.plot(own[x], own[value], color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
            if bands:
                ax.fill_between(own[x], own[f"{value}_low"], own[f"{value}_high"], color=colour, alpha=0.2, linewidth=0)
        ax.set_xlabel(xlabel or x.replace("_", " "), fontsize=9, color=INK)
        if panel:
            ax.set_title(f"{panel.replace('_', ' ')} = {title}", fontsize=10, color=INK)
        ax.grid(axis="y", color="#eeeeee", linewidth=0.7)
    for ax in axes:
        for letter in log:
            logarithmic(ax, letter)
    axes[0].set_ylabel(ylabel, fontsize=9, color=INK)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return write_png(figure, path)
