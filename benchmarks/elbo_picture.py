"""The picture of the study of ELBOs."""

from pathlib import Path
from typing import Any

import pandas as pd

from gumbel_moe.diagnostics.pictures import draw_variance, write_png

_NAMES = {
    "enumerated": "assignment summed out",
    "independent": "independent, particles shared out",
    "unlimited": "no capacity, particles independent",
    "skip": "skip, 16 places",
    "gumbel_matching": "Gumbel-Matching, 16 places",
    "skip_roomy": "skip, 24 places",
    "gumbel_matching_roomy": "Gumbel-Matching, 24 places",
}


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Ratio of variances against the training step, one panel for each start."""
    table = pd.DataFrame(
        {
            "estimator": name,
            "scale of the first lines": row["start"],
            "step": row["step"],
            "trace": row[key]["ratio"]["all"]["value"],
            "trace_low": row[key]["ratio"]["all"]["low"],
            "trace_high": row[key]["ratio"]["all"]["high"],
        }
        for row in rows
        if row["particles"] == 4
        for key, name in _NAMES.items()
    )
    label = "variance over TraceGraph_ELBO's"
    figure = draw_variance(
        table, "step", panel="scale of the first lines", log="y", xlabel="training step", ylabel=label
    )
    for ax in figure.axes:
        ax.set_xscale("symlog", linthresh=50)
        ax.set_xticks([0, 50, 200, 1000], labels=["0", "50", "200", "1000"])
        ax.minorticks_off()
        ax.axhline(1, color="#c8c8c8", linewidth=0.8, zorder=0)
    write_png(figure, path)
