"""Pictures of the variance study."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from gumbel_moe.diagnostics.pictures import write_png

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

Row = dict[str, Any]

_LOOKS = {
    "skip": {"color": "#0072b2", "marker": "o", "label": "skip"},
    "gumbel_matching": {"color": "#d55e00", "marker": "s", "label": "Gumbel-Matching"},
}
_OVER, _BOTH = "gumbel_matching_over_skip", "#333333"
_ROUTERS = {(False, 0.0): "balanced router", (False, 1.5): "skewed router", (True, 0.0): "informed router"}
_NATS = "standard deviation of the logits (nats)"
_LEVELS = (1, 2, 5, 0.5, 3, 1.5, 0.7, 1.2, 0.9, 1.1)
"""Numbers on an axis of ratios, those to keep first."""


def pictures(rows: list[Row], folder: Path) -> None:
    """One for each thing that is varied."""

    def pick(**wanted: float) -> list[Row]:
        return [row for row in rows if all(row[name] == value for name, value in wanted.items())]

    def by_router(chosen: list[Row]) -> dict[str, list[Row]]:
        return {name: [row for row in chosen if router(row) == kind] for kind, name in _ROUTERS.items()}

    def draw(name: str, panels: dict[str, list[Row]], x: str, label: str, log: bool = False) -> None:
        picture(panels, x, label, folder / f"variance_{name}.png", log)

    draw("capacity", by_router(pick(k=8, ratio=8, scale=1)), "factor", "capacity factor (places per datapoint)")
    draw("sharpness", by_router(pick(k=8, ratio=8, factor=1)), "scale", _NATS)
    # With one place per expert the variance of Gumbel-Matching is infinite: there is nothing to draw.
    many = [row for row in pick(k=8, scale=1, factor=1) if row["ratio"] > 1]
    draw("ratio", by_router(many), "ratio", "datapoints per expert", log=True)
    skew = {f"{c} datapoints per expert": pick(informed=False, k=8, scale=1, factor=1, ratio=c) for c in (8, 32)}
    draw("skew", skew, "favour", "lead of a quarter of the experts (nats)")
    draw("two_experts", by_router(pick(k=2)), "scale", _NATS)


def router(row: Row) -> tuple[bool, float]:
    """Its kind."""
    return row["informed"], row["favour"]


def picture(panels: dict[str, list[Row]], x: str, label: str, path: Path, log: bool) -> None:
    """Above, both processes over independent draws; below, one over the other, problem by problem."""
    figure, axes = plt.subplots(
        2,
        len(panels),
        figsize=(3.6 * len(panels) + 0.6, 5.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        height_ratios=(3, 2),
        layout="constrained",
    )
    for (above, below), (title, rows) in zip(axes.T, panels.items(), strict=True):
        rows = sorted(rows, key=lambda row: row[x])
        for process, look in _LOOKS.items():
            _line(above, rows, x, lambda row, process=process: row[process]["all"], **look)
        _line(below, rows, x, lambda row: row[_OVER], color=_BOTH, marker="D", label="Gumbel-Matching over skip")
        above.set_title(title, fontsize=11)
        below.set_xlabel(label)
        below.set_xscale("log" if log else "linear")
        values = [row[x] for row in rows]
        below.set_xticks(values, [f"{value:g}" for value in values])
        below.minorticks_off()
        for ax in (above, below):
            ax.axhline(1, color="#888888", linewidth=1, zorder=0)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(axis="y", color="#eeeeee", linewidth=0.7)
    for row, name in zip(
        axes, ("variance / that of\nindependent draws", "variance of Gumbel-\nMatching / of skip"), strict=True
    ):
        _ratio_axis(row[0])
        row[0].set_ylabel(name)
    axes[1, 0].annotate("skip is better", (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=9, color="#555555")
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(figure, path, dpi=120)
    plt.close(figure)


def _line(ax: Axes, rows: list[Row], x: str, of: Callable[[Row], dict[str, float]], **look: str) -> None:
    """Means, and a band for their intervals; hollow where the interval holds 1."""
    at, found = [row[x] for row in rows], [of(row) for row in rows]
    low, high = ([each[end] for each in found] for end in ("low", "high"))
    ax.fill_between(at, low, high, color=look["color"], alpha=0.18, linewidth=0)
    ax.plot(at, [each["value"] for each in found], linewidth=1.6, markersize=5, **look)  # pyright: ignore[reportArgumentType]
    open_ = [(place, each["value"]) for place, each in zip(at, found, strict=True) if each["low"] <= 1 <= each["high"]]
    if open_:
        places, values = zip(*open_, strict=True)
        ax.plot(places, values, ls="", marker=look["marker"], markersize=5, mec=look["color"], mfc="white", zorder=3)


def _ratio_axis(ax: Axes) -> None:
    """Logarithmic, with plain numbers: twice as much is as far as half as much."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    shown: list[float] = []
    for level in _LEVELS:
        apart = all(abs(math.log(level / other)) > 0.07 * math.log(high / low) for other in shown)
        if low <= level <= high and apart:
            shown.append(level)
    ax.set_yticks(shown, [f"{level:g}" for level in shown])
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
