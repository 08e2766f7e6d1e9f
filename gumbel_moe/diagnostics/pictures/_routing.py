"""A router at work: its weights and the load of its experts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gumbel_moe.diagnostics.pictures._style import BAD, FAINT, GOOD, INK, LINES, figure_of, logarithmic, write_png

if TYPE_CHECKING:
    from gumbel_moe.diagnostics._routing_report import RoutingReport


def draw_routing(report: "RoutingReport", path: str | Path | None = None) -> Figure:
    """The histogram of the weights beside the load of every expert."""
    figure, (left, right) = figure_of(10, 3.4, 1, 2)
    _histogram(left, report, "weights", GOOD)
    n = report.p.shape[0]
    left.set_title(
        f"effective fraction {report.effective_fraction:.2f}, largest {report.max_weight:.3g}", fontsize=10, color=INK
    )
    table = report.summary
    experts = np.arange(len(table))
    right.bar(experts, table["sent"], color="white", edgecolor=FAINT, hatch="////", width=0.75, label="sent")
    right.bar(experts, table["load"], color=GOOD, alpha=0.8, width=0.75, label="handled, with 5% and 95%")
    right.vlines(experts, table["load_5%"], table["load_95%"], color=INK, linewidth=1.2)
    right.scatter(experts, n * table["p"], marker="_", s=120, color=BAD, zorder=3, label="n times mean p")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("expert", fontsize=9, color=INK)
    right.set_ylabel("datapoints, mean over draws", fontsize=9, color=INK)
    right.set_title(f"skipped {report.skipped:.1%}, max violation {report.max_violation:.2f}", fontsize=10, color=INK)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return write_png(figure, path)


def draw_weights(reports: Mapping[str, "RoutingReport"], path: str | Path | None = None) -> Figure:
    """The weights of several routers, one histogram over the other, by name."""
    figure, (ax,) = figure_of(6.5, 3.6)
    for place, (name, report) in enumerate(reports.items()):
        _histogram(ax, report, name, LINES[place % len(LINES)])
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return write_png(figure, path)


def _histogram(ax: Axes, report: "RoutingReport", label: str, colour: str) -> None:
    """As a share of all datapoints of all draws; those skipped are what is missing to 1."""
    table = report.weight_histogram
    share = table["count"].to_numpy() / report.seen.histogram.sum()
    edges = np.append(table["low"].to_numpy(), table["high"].to_numpy()[-1])
    ax.stairs(share, edges, color=colour, fill=True, alpha=0.25)
    ax.stairs(share, edges, color=colour, label=label)
    some = np.flatnonzero(share)
    if len(some):
        low, high = ax.get_xlim() if ax.get_xscale() == "log" else (np.inf, 0.0)  # of those drawn before
        ax.set_xscale("log")
        ax.set_xlim(float(min(edges[some[0]] / 1.2, low)), float(max(edges[some[-1] + 1] * 1.2, high)))
        logarithmic(ax, "x")
        ax.set_yscale("log")
    ax.set_xlabel("weight of a datapoint that is handled", fontsize=9, color=INK)
    ax.set_ylabel("share of all datapoints", fontsize=9, color=INK)
