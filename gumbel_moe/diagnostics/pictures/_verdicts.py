"""Many estimators of one gradient: the evidence for a bias, and its size."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures._style import BAD, FAINT, GOOD, INK, figure_of, logarithmic, write_png

_LEAST = 0.05  # of a score over its limit, where it is drawn


def draw_verdicts(summary: pd.DataFrame, path: str | Path | None = None) -> Figure:
    """A row for each estimator, from the table of `check_all`: left z-scores over their limits, beyond 1 a bias is
    found; right the norm of the bias, over that of the exact gradient where it is known, of those that failed, and in
    grey what would have been found in one coordinate.
    """
    figure, (left, right) = figure_of(9.5, 1.9 + 0.34 * len(summary), 1, 2)
    right.sharey(left)
    place = np.arange(len(summary))[::-1]
    passed = summary["passed"].to_numpy(bool)
    colours = [GOOD if good else BAD for good in passed]
    evidence = {"o": summary["max_z"] / summary["limit"], "D": summary["spread_z"] / summary["spread_limit"]}
    of_one = left.scatter(np.maximum(evidence["o"], _LEAST), place, s=34, c=colours, zorder=3)
    of_all = left.scatter(
        np.maximum(evidence["D"], _LEAST), place, s=28, marker="D", facecolors="none", edgecolors=colours, zorder=3
    )
    left.axvline(1, color=INK, linewidth=0.8)
    left.set_yticks(place, [str(name) for name in summary.index])
    left.set_ylim(-0.6, len(summary) - 0.4)
    left.set_xlabel("evidence for a bias, over its limit", fontsize=9, color=INK)
    logarithmic(left, "x")

    relative = bool(np.isfinite(summary["relative_bias"]).any())
    prefix = "relative_" if relative else ""
    bias, detectable = (summary[f"{prefix}{name}"].to_numpy() for name in ("bias", "detectable_bias"))
    right.barh(place, detectable, height=0.7, color=FAINT, alpha=0.5, linewidth=0)
    right.barh(place, np.where(passed, 0, bias), height=0.36, color=BAD)
    right.tick_params(labelleft=False)
    unit = ", over the gradient's norm" if relative else ""
    right.set_xlabel(f"bias that was found{unit}; grey: detectable", fontsize=9, color=INK)
    right.set_xlim(left=0)
    for mark in (of_one, of_all):
        mark.set_clip_on(False)
    labels = ["largest z-score of a coordinate", f"t-score of all together; {_LEAST} for less, and below 0"]
    figure.legend([of_one, of_all], labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return write_png(figure, path)
