"""What runs left on disk: their settings, evaluations and curves; and a table of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.language._methods import METHODS
from inference.language._settings import Settings
from inference.shared.table import Row, aligned_table

_STEPS = 25  # to a point of a curve


@dataclass(frozen=True)
class Run:
    """A run as far as it has come."""

    settings: Settings
    evaluations: list[dict[str, Any]]
    curve: list[dict[str, float]]
    """Of training: for every 25 steps the last `step`, the `seconds` that all steps so far took (evaluations and saves
    apart), and the mean `bits_per_byte`.
    """

    @property
    def finished(self) -> bool:
        """Whether it has taken and evaluated all its steps."""
        return bool(self.evaluations) and self.evaluations[-1]["step"] == self.settings.steps

    def bits_at(self, seconds: float, way: str) -> float | None:
        """Bits per byte of held-out text, routed this way, after so much training, between two evaluations."""
        steps, spent = ([0, *(point[name] for point in self.curve)] for name in ("step", "seconds"))
        at = [np.interp(line["step"], steps, spent) for line in self.evaluations]
        if not at or not at[0] <= seconds:
            return None
        return float(np.interp(seconds, at, [line[f"{way}/bits_per_byte"] for line in self.evaluations]))


def read_run(folder: Path) -> Run:
    """The run in a folder; lines that were cut short are left out."""
    settings = Settings.read(folder / "run.json")
    return Run(settings, _lines(folder / "evaluations.jsonl"), _curve(settings, read_metrics(folder)))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every step of the run in a folder."""
    return _lines(folder / "metrics.jsonl")


def read_runs(folder: Path) -> list[Run]:
    """The run in a folder, or the runs in its folders, in the order of their names, and those of its `results.json` of
    which there is no folder; those that have begun.
    """
    if (folder / "run.json").exists():
        return [read_run(folder)]
    found = [read_run(path.parent) for path in sorted(folder.glob("*/run.json"))]
    known = [run.settings for run in found]
    found += [run for run in recorded(folder / "results.json") if run.settings not in known]
    return [run for run in found if run.curve]


def recorded(path: Path) -> list[Run]:
    """The runs that a `results.json` holds."""
    if not path.exists():
        return []
    runs = json.loads(path.read_text()).get("runs", [])
    return [Run(Settings.from_json(run["settings"], path), run["evaluations"], run["curve"]) for run in runs]


def record(runs: list[Run]) -> list[dict[str, Any]]:
    """For a `results.json`."""
    return [asdict(run) for run in runs]


def rows_of(runs: list[Run]) -> list[Row]:
    """A row for each router and way of routing, over the seeds that have finished.

    `at_equal_time` is what a router had reached when the fastest one was through with all its steps.
    """
    rows: list[Row] = []
    finished = [run for run in runs if run.finished]
    for name in METHODS:
        own = [run for run in finished if run.settings.router == name]
        for way in METHODS[name].ways() if own else ():
            last = [run.evaluations[-1] for run in own]
            bits = np.array([line[f"{way}/bits_per_byte"] for line in last])
            row: Row = {"router": name, "way": way, "seeds": len(own), "bits_per_byte": float(bits.mean())}
            row["spread"] = float(bits.std(ddof=1)) if len(own) > 1 else None
            for metric in ("skipped", "max_violation", "entropy"):
                found = [line[f"{way}/{metric}"] for line in last if f"{way}/{metric}" in line]
                row[metric] = float(np.mean(found)) if found else None
            row["in_training"] = float(np.mean([[point["bits_per_byte"] for point in run.curve[-4:]] for run in own]))
            row["seconds"] = float(np.mean([run.curve[-1]["seconds"] for run in own]))
            rows.append(row)
    fastest = min((row["seconds"] for row in rows), default=0.0)  # pyright: ignore[reportArgumentType]
    for row in rows:
        own = [run for run in finished if run.settings.router == row["router"]]
        then = [run.bits_at(fastest, row["way"]) for run in own]  # pyright: ignore[reportArgumentType]
        reached = [bits for bits in then if bits is not None]
        row["at_equal_time"] = float(np.mean(reached)) if len(reached) == len(own) else None
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
        ("at_equal_time", "at equal time", ".3f"),
    ]
    return aligned_table("held-out text, after training on it for equally many tokens", columns, rows)


def _curve(settings: Settings, metrics: list[dict[str, Any]]) -> list[dict[str, float]]:
    seconds = np.cumsum([settings.tokens / line["tokens_per_second"] for line in metrics])
    points = []
    for first in range(0, len(metrics), _STEPS):
        part = metrics[first : first + _STEPS]
        bits = float(np.mean([line["bits_per_byte"] for line in part]))
        points.append(
            {"step": part[-1]["step"], "seconds": float(seconds[first + len(part) - 1]), "bits_per_byte": bits}
        )
    return points


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found
