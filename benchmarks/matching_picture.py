"""Time of the matching against the number of datapoints, log-log, one line per solver."""

from pathlib import Path
from typing import Any

import matplotlib

from gumbel_moe.diagnostics.pictures import write_png

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel per family; lines join the sizes with 64 experts, the other sizes are dots."""
    families = list(dict.fromkeys(row["family"] for row in rows))
    solvers = list(dict.fromkeys(solver for row in rows for solver in row["seconds"] if solver != "gumbel_moe other"))
    figure, panels = plt.subplots(1, len(families), figsize=(2.8 * len(families), 3.4), sharey=True, squeeze=False)
    for panel, family in zip(panels[0], families, strict=True):
        for number, solver in enumerate(solvers):
            mine = [row for row in rows if row["family"] == family and solver in row["seconds"]]
            line = [row for row in mine if row["k"] == 64]
            dots = [row for row in mine if row["k"] != 64]
            color = f"C{number}"
            panel.plot(
                [row["n"] for row in line],
                [1e3 * row["seconds"][solver] for row in line],
                marker="o",
                color=color,
                label=solver,
            )
            panel.plot(
                [row["n"] for row in dots],
                [1e3 * row["seconds"][solver] for row in dots],
                ls="",
                marker="x",
                color=color,
            )
        panel.set(xscale="log", yscale="log", title=family, xlabel="datapoints n")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("time in ms")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(figure, path, dpi=120)
    plt.close(figure)
