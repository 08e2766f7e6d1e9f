"""Expert load: how many datapoints of a batch each expert is sent, and how many of them it computes."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from inference._starts import Outcome
from inference._tasks import Task
from inference.pictures._style import COLOURS, INK, panels, save


def draw_load(task: Task, outcomes: list[Outcome], path: Path) -> Path:
    """One panel per router: experts from the busiest to the idlest of each start, means over starts."""
    title = f"{task.name}: expert load at the end of training (batches of {task.batch_size})"
    figure, axes = panels(outcomes, title, "expert, from the busiest to the idlest", height=2.1)
    places = np.arange(task.num_experts) + 1
    for ax, outcome in zip(axes, outcomes, strict=True):
        demand, load = _by_rank(outcome.late("demand"), outcome.late("load"))
        colour = COLOURS[outcome.kind]
        ax.bar(places, load, color=colour, width=0.75)
        ax.bar(places, demand - load, bottom=load, color="white", edgecolor=colour, hatch="////", width=0.75)
        ax.axhline(task.capacity, color=INK, linewidth=1, linestyle="--")
        ax.set_xticks(places)
        skipped = float(np.mean(outcome.late("skipped")))
        ax.annotate(f"skipped {skipped:.0%}", (0.97, 0.9), xycoords="axes fraction", ha="right", fontsize=8, color=INK)
    figure.supylabel("datapoints per batch", fontsize=10)
    handles = [
        Patch(color="#888888", label="computed"),
        Patch(facecolor="white", edgecolor="#888888", hatch="////", label="sent there, but skipped"),
        Line2D([], [], color=INK, linewidth=1, linestyle="--", label="capacity = mean load (no limit for independent)"),
    ]
    return save(figure, handles, path)


def _by_rank(demand: np.ndarray, load: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over starts `(starts, k) -> (k,)`, experts sorted by demand within each start."""
    order = np.argsort(-demand, axis=1)
    return tuple(np.take_along_axis(values, order, axis=1).mean(axis=0) for values in (demand, load))
