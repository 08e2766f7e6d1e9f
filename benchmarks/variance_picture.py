"""Pictures of the variance study."""

from pathlib import Path
from typing import Any

import pandas as pd

from gumbel_moe.diagnostics.pictures import draw_variance

_NAMES = {"skip": "skip", "gumbel_matching": "Gumbel-Matching"}
_ROUTERS = {(False, 0.0): "balanced", (False, 1.5): "skewed", (True, 0.0): "informed"}
_LABEL = "variance over independent draws"


def pictures(rows: list[dict[str, Any]], folder: Path) -> None:
    """One for each thing that is varied."""
    table = long_form(rows)

    def draw(which: str, x: str, name: str, label: str, panel: str = "router", log: str = "") -> None:
        path = folder / f"variance_{name}.png"
        draw_variance(table.query(which), x, path, panel=panel, log=log, xlabel=label, ylabel=_LABEL)

    whole, nats = "part == 'all' and k == 8", "scale of the logits (nats)"
    draw(f"{whole} and ratio == 8 and scale == 1 and router != ''", "factor", "capacity", "capacity factor")
    draw(f"{whole} and ratio == 8 and factor == 1 and router != ''", "scale", "sharpness", nats, log="y")
    # With one place per expert Gumbel-Matching has no variance to draw.
    many = "ratio > 1 and scale == 1 and factor == 1 and router != ''"
    draw(f"{whole} and {many}", "ratio", "ratio", "datapoints per expert", log="x")
    skew = "ratio in [8, 32] and scale == 1 and factor == 1 and not informed"
    draw(f"{whole} and {skew}", "favour", "skew", "nats more for a quarter of the experts", "places", log="y")
    draw("part == 'all' and k == 2", "scale", "two_experts", nats, log="y")


def long_form(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per setting, process and part of the gradient."""
    return pd.DataFrame(
        {
            "estimator": name,
            "router": _ROUTERS.get((row["informed"], row["favour"]), ""),
            **{key: row[key] for key in ("informed", "favour", "k", "ratio", "factor", "scale")},
            "places": row["capacity"],
            "part": part,
            "trace": row[process][part]["value"],
            "trace_low": row[process][part]["low"],
            "trace_high": row[process][part]["high"],
        }
        for row in rows
        for process, name in _NAMES.items()
        for part in ("all", "expert", "router")
    )
