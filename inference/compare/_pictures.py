"""Learning curves and expert load."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from inference.compare._summary import quartiles
from inference.shared.style import COLOURS, INK, KINDS, bar_legend, curve_legend, draw_bars, draw_curve, panels, save
from inference.training.starts import Outcome
from inference.training.tasks import Task

CURVES = (
    "the objective at test over the steps of training, a panel for each router: the lower, the better its gradient has "
    "led; the grey curves are the medians of the others"
)
LOAD = (
    "how many datapoints of a batch every expert computes at the end of training, and hatched how many it was sent but "
    "had no room for"
)
"""What the two pictures show, in a sentence."""
_STYLES = ("--", ":")  # of the references


def draw_curves(outcomes: list[Outcome], references: dict[str, float], unit: str, path: Path) -> Path:
    """The true loss over the steps, a panel per router: median and middle half of the starts, the medians of all others
    behind it in grey; `unit` is that of the loss.
    """
    figure, axes = panels(outcomes, f"{outcomes[0].data}: learning curves", "training steps")
    medians = [np.array([_median(point) for point in outcome.curve("true_loss")]) for outcome in outcomes]
    for ax, outcome, median in zip(axes, outcomes, medians, strict=True):
        others = [(other.at, values) for other, values in zip(outcomes, medians, strict=True) if other is not outcome]
        band = np.array([quartiles(point) for point in outcome.curve("true_loss")]).T
        draw_curve(ax, outcome.kind, outcome.at, median, band, others)
        for style, value in zip(_STYLES, references.values(), strict=False):
            ax.axhline(value, color=INK, linewidth=1, linestyle=style, zorder=1.5)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
    figure.supylabel(f"true loss at test ({unit})", fontsize=10)
    handles = [
        Line2D([], [], color=COLOURS[kind], linewidth=1.8, label=f"median: {KINDS[kind]}")
        for kind in dict.fromkeys(outcome.kind for outcome in outcomes)
    ]
    handles += curve_legend("middle half of the starts", "medians of the other routers")
    handles += [
        Line2D([], [], color=INK, linewidth=1, linestyle=style, label=f"{name.replace('_', ' ')}, trained")
        for style, name in zip(_STYLES, references, strict=False)
    ]
    return save(figure, handles, path)


def draw_load(task: Task, outcomes: list[Outcome], path: Path) -> Path:
    """One panel per router: experts from the busiest to the idlest of each start, means over starts."""
    title = f"{task.name}: expert load at the end of training (batches of {task.data.batch_size})"
    figure, axes = panels(outcomes, title, "expert, from the busiest to the idlest", height=2.1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        demand, load = outcome.late("demand"), outcome.late("load")
        draw_bars(ax, outcome.kind, demand, demand, load, task.capacity)
        skipped = float(np.mean(outcome.late("skipped")))
        ax.annotate(f"skipped {skipped:.0%}", (0.97, 0.9), xycoords="axes fraction", ha="right", fontsize=8, color=INK)
    figure.supylabel("datapoints per batch", fontsize=10)
    handles = bar_legend("sent there, but skipped", "capacity = mean load (no limit for independent)")
    return save(figure, handles, path)


def _median(values: np.ndarray) -> float:
    return float(np.median(np.where(np.isfinite(values), values, np.inf)))
