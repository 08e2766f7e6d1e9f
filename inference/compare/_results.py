"""What a comparison leaves on disk, written again after every router."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gumbel_moe._whole_file import write_json
from inference.compare._summary import row_of
from inference.shared.folder import keep_earlier, write_arrays
from inference.shared.machine import machine, versions
from inference.shared.table import Row
from inference.training.starts import Outcome
from inference.training.tasks import Task


def picture_names(task: str) -> list[str]:
    """Files of learning curves, load and fit; not every problem has them all."""
    return [f"{task}_{kind}.png" for kind in ("curves", "load", "fit")]


@dataclass
class Results:
    """Rows for `results.json`, and every metric of every start at every point for `curves.npz`."""

    folder: Path
    seed: int
    tasks: list[str]
    rows: list[Row] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    """What the pictures show, by the names of their files."""
    interrupted: Row | None = None
    """What the router reached that was being trained when the program was interrupted."""

    def __post_init__(self) -> None:
        pictures = [name for task in self.tasks for name in picture_names(task)]
        names = ("results.json", "curves.npz", *pictures)
        self.moved = [moved for name in names if (moved := keep_earlier(self.folder / name))]

    def add(self, task: Task, outcome: Outcome) -> None:
        """Take in an outcome, finished or not, and write."""
        if len(outcome.at) > 1:
            row = row_of(task, outcome)
            if outcome.finished:
                self.rows.append(row)
            else:
                self.interrupted = row
            self.outcomes.append(outcome)
        self.write()

    def add_row(self, row: Row) -> None:
        """Take in a row that no training of ours made, and write."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Both files, each whole or not at all."""
        content: dict[str, Any] = {"rows": self.rows, "seed": self.seed, "versions": versions(), "machine": machine()}
        if self.captions:
            content["pictures"] = self.captions
        if self.interrupted is not None:
            content["interrupted"] = self.interrupted
        write_json(self.folder / "results.json", content)
        arrays = {}
        for outcome in self.outcomes:
            arrays[f"{outcome.data}/{outcome.router}/step"] = np.asarray(outcome.at)
            for name in outcome.points[0]:
                arrays[f"{outcome.data}/{outcome.router}/{name}"] = outcome.curve(name)
        write_arrays(self.folder / "curves.npz", arrays)
