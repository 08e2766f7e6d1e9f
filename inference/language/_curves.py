"""What runs left on disk: their settings, metrics and evaluations; and a table of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.language._methods import METHODS
from inference.language._settings import Settings
from inference.shared.table import Row, aligned_table


@dataclass(frozen=True)
class Run:
    """A run as far as it has come."""

    settings: Settings
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether it has taken and evaluated all its steps."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] == self.settings.steps


def read_run(folder: Path) -> Run:
    """The run in a folder; lines that were cut short are left out."""
    settings = Settings(**json.loads((folder / "run.json").read_text()))
    return Run(settings, _lines(folder / "metrics.jsonl"), _lines(folder / "evaluations.jsonl"))


def read_runs(folder: Path) -> list[Run]:
    """The run in a folder, or the runs in its folders, in the order of their names; those that have begun."""
    places = [folder] if (folder / "run.json").exists() else sorted(path.parent for path in folder.glob("*/run.json"))
    return [run for run in map(read_run, places) if run.metrics]


def rows_of(runs: list[Run]) -> list[Row]:
    """A row for each router and way of routing, over the seeds that have finished."""
    rows: list[Row] = []
    for name in METHODS:
        own = [run for run in runs if run.settings.router == name and run.finished]
        for way in METHODS[name].ways() if own else ():
            last = [run.evaluations[-1] for run in own]
            bits = np.array([line[f"{way}/bits_per_byte"] for line in last])
            row: Row = {"router": name, "way": way, "seeds": len(own), "bits_per_byte": float(bits.mean())}
            row["spread"] = float(bits.std(ddof=1)) if len(own) > 1 else None
            for metric in ("skipped", "max_violation", "entropy"):
                found = [line[f"{way}/{metric}"] for line in last if f"{way}/{metric}" in line]
                row[metric] = float(np.mean(found)) if found else None
            trained = [np.mean([line["bits_per_byte"] for line in run.metrics[-100:]]) for run in own]
            row["in_training"] = float(np.mean(trained))
            row["seconds"] = float(np.mean([_seconds(run) for run in own]))
            rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """To read in a terminal."""
    columns = [
        ("router", "router", ""),
        ("way", "routed by", ""),
        ("seeds", "seeds", "d"),
        ("bits_per_byte", "bits per byte", ".3f"),
        ("spread", "spread", ".3f"),
        ("in_training", "in training", ".3f"),
        ("skipped", "skipped", ".3f"),
        ("max_violation", "violation", ".2f"),
        ("entropy", "entropy", ".2f"),
        ("seconds", "seconds", ".0f"),
    ]
    return aligned_table("held-out text, after training on it for equally many tokens", columns, rows)


def _seconds(run: Run) -> float:
    """Of all steps, evaluations and saves apart."""
    return float(sum(run.settings.tokens / line["tokens_per_second"] for line in run.metrics))


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
