"""Curves of the runs in a folder."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures import write_png
from inference.language._curves import Run
from inference.language._methods import METHODS


def draw(runs: list[Run], path: Path) -> Path:
    """Bits per byte in training (lines) and on held-out text by the router's best way (points): against the tokens, and
    against the seconds of the steps; one colour for each router.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    by_tokens, by_seconds = figure.subplots(1, 2, sharey=True)
    names = [name for name in METHODS if any(run.settings.router == name for run in runs)]
    for run in runs:
        colour = f"C{names.index(run.settings.router) % 10}"
        first = next(other for other in runs if other.settings.router == run.settings.router) is run
        label = run.settings.router.replace("_", " ") if first else None
        steps, seconds, bits = (
            np.array([point[name] for point in run.curve]) for name in ("step", "seconds", "bits_per_byte")
        )
        way = run.settings.method.best_way()
        tested = [(line["step"], line[f"{way}/bits_per_byte"]) for line in run.evaluations]
        for ax, at in ((by_tokens, steps * run.settings.tokens / 1e6), (by_seconds, seconds)):
            ax.plot(at, bits, color=colour, linewidth=1, label=label)
            where = np.interp([step for step, _ in tested], steps, at)
            ax.plot(where, [bit for _, bit in tested], "o", color=colour, markersize=4)
    _label(by_tokens, "millions of tokens")
    _label(by_seconds, "seconds")
    by_tokens.set_ylabel("bits per byte")
    by_seconds.legend(frameon=False, fontsize=8)
    write_png(figure, path)
    return path


def _label(ax: Axes, xlabel: str) -> None:
    ax.set_xlabel(xlabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.7)
