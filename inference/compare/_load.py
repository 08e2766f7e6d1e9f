"""Expert load: how many datapoints of a batch each expert is sent, and how many of them it computes."""

from pathlib import Path

import numpy as np

from inference.shared.style import INK, bar_legend, by_rank, draw_bars, panels, save
from inference.training.starts import Outcome
from inference.training.tasks import Task


def draw_load(task: Task, outcomes: list[Outcome], path: Path) -> Path:
    """One panel per router: experts from the busiest to the idlest of each start, means over starts."""
    title = f"{task.name}: expert load at the end of training (batches of {task.data.batch_size})"
    figure, axes = panels(outcomes, title, "expert, from the busiest to the idlest", height=2.1)
    for ax, outcome in zip(axes, outcomes, strict=True):
        demand, load = by_rank(outcome.late("demand"), outcome.late("demand"), outcome.late("load"))
        draw_bars(ax, outcome.kind, demand, load, task.capacity)
        skipped = float(np.mean(outcome.late("skipped")))
        ax.annotate(f"skipped {skipped:.0%}", (0.97, 0.9), xycoords="axes fraction", ha="right", fontsize=8, color=INK)
    figure.supylabel("datapoints per batch", fontsize=10)
    handles = bar_legend("sent there, but skipped", "capacity = mean load (no limit for independent)")
    return save(figure, handles, path)
