"""The toy's fit and routing: the bent line, both experts, and who is asked where."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D

from inference.shared.style import FAINT, INK, REGIONS, panels, save
from inference.shared.table import Row
from inference.training.methods import METHODS
from inference.training.starts import Outcome
from inference.training.tasks import Task
from models.data import bent_line_grid

TOY = (
    "for each router the start of median loss: the bent line, both lines that were learned, and in the strip below who "
    "is asked where"
)
"""What the picture shows, in a sentence."""
_EXPERTS = ("#009e73", "#e69f00")
_BY_EXPERT = LinearSegmentedColormap.from_list("experts", _EXPERTS)
_LOW, _HIGH = -0.75, 1.6
_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
_STRIP = 0.2  # height of the strip that shows the routing, in units of y


def draw_toy(task: Task, outcomes: list[Outcome], rows: list[Row], path: Path) -> Path:
    """One panel per router, each with its start of median true loss."""
    title = "toy: fit and routing, for each router its start of median true loss"
    figure, axes = panels(outcomes, title, "x", height=2.6)
    x, y = bent_line_grid(400)
    for ax, outcome, row in zip(axes, outcomes, rows, strict=True):
        state = _median_start(outcome)
        capacity = task.capacity_among(x.shape[0])
        method = METHODS[outcome.router]
        if task.experts_per_datapoint > 1:
            method = method.with_experts(task.experts_per_datapoint)
        own = method.predict(state.model, x, y, state.router_state, capacity).outputs
        _panel(ax, *(np.asarray(part) for part in (x, y, state.model.logits(x), state.model.all_outputs(x), own)))
        text = f"true loss {row['true_loss_median']:.3g}, solved {row['solved']:.0%}"
        text += f"\nown loss {row['own_loss_median']:.3g}, own solved {row['own_solved']:.0%}"
        ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=7, color=INK, bbox=_BEHIND)
    figure.supylabel("y", fontsize=10)
    handles = [
        Line2D([], [], color=FAINT, linewidth=5, label="data"),
        Line2D([], [], color=_EXPERTS[0], linewidth=1.6, label="expert 1"),
        Line2D([], [], color=_EXPERTS[1], linewidth=1.6, label="expert 2"),
        Line2D([], [], color=INK, linewidth=1.4, linestyle=":", label="the method's own prediction"),
        Line2D([], [], color=_BY_EXPERT(0.5), linewidth=5, label="strip: routing probability, by colour"),
    ]
    return save(figure, handles, path)


def _panel(ax: Axes, x: np.ndarray, y: np.ndarray, logits: np.ndarray, outputs: np.ndarray, own: np.ndarray) -> None:
    x, y, own = x[:, 0], y[:, 0].copy(), own[:, 0]
    for half in (x < 0.5, x >= 0.5):
        ax.plot(x[half], y[half], color=FAINT, linewidth=6, solid_capstyle="butt", zorder=1)
    for expert, colour in enumerate(_EXPERTS):
        ax.plot(x, outputs[:, expert, 0], color=colour, linewidth=1.6, zorder=2)
    ax.plot(x, own, color=INK, linewidth=1.4, linestyle=":", zorder=3)
    probability = np.asarray(jax.nn.softmax(jnp.asarray(logits), axis=1))[:, 1]
    extent = (0, 1, _LOW, _LOW + _STRIP)
    ax.imshow(probability[None], extent=extent, cmap=_BY_EXPERT, vmin=0, vmax=1, zorder=4, **REGIONS)
    ax.set_xlim(0, 1)
    ax.set_ylim(_LOW, _HIGH)


def _median_start(outcome: Outcome) -> Any:
    """The state of the start in the middle when they are ordered by true loss."""
    order = np.argsort(np.nan_to_num(outcome.last("true_loss"), nan=np.inf))
    middle = int(order[(len(order) - 1) // 2])
    return jax.tree.map(lambda leaf: leaf[middle], outcome.states)
