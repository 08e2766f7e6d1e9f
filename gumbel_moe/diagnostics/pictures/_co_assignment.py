"""Which datapoints share an expert."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures._style import INK, figure_of, write_png


def draw_co_assignment(
    matrices: Mapping[str, np.ndarray], groups: np.ndarray, path: str | Path | None = None
) -> Figure:
    """Matrices `(n, n)` side by side, rows and columns sorted by `groups` `(n,)`, with lines between groups."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 0.5
    figure, axes = figure_of(4.2 * len(matrices) + 0.6, 4.2, 1, len(matrices))
    images = []
    for ax, (name, matrix) in zip(axes, matrices.items(), strict=True):
        shown = matrix[np.ix_(order, order)]
        images.append(ax.imshow(shown, vmin=0, vmax=1, cmap="viridis", interpolation="nearest"))
        for end in ends:
            ax.axhline(end, color="white", linewidth=0.8)
            ax.axvline(end, color="white", linewidth=0.8)
        ax.set_title(name, fontsize=10, color=INK)
        ax.set_xlabel("datapoint, sorted by group", fontsize=9, color=INK)
    figure.colorbar(images[-1], ax=axes, label="share of draws with the same expert", shrink=0.8)
    return write_png(figure, path)
