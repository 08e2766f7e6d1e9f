"""What a comparison leaves on disk, written again after every router."""

import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gumbel_moe._whole_file import whole_file, write_json
from inference._rows import Row, keep_earlier, row_of
from inference._starts import Outcome
from inference._tasks import Task


@dataclass
class Results:
    """Rows for `results.json`, and every metric of every start at every point for `curves.npz`."""

    folder: Path
    seed: int
    rows: list[Row] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: Row | None = None
    """What the router reached that was being trained when the program was interrupted."""

    def __post_init__(self) -> None:
        self.moved = [moved for name in ("results.json", "curves.npz") if (moved := keep_earlier(self.folder / name))]

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
        if self.interrupted is not None:
            content["interrupted"] = self.interrupted
        write_json(self.folder / "results.json", content)
        arrays = {}
        for outcome in self.outcomes:
            arrays[f"{outcome.data}/{outcome.router}/step"] = np.asarray(outcome.at)
            for name in outcome.points[0]:
                arrays[f"{outcome.data}/{outcome.router}/{name}"] = outcome.curve(name)
        write_arrays(self.folder / "curves.npz", arrays)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write `arrays` to `path` whole or not at all."""
    with whole_file(path) as part, part.open("wb") as file:  # a name would get .npz appended
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    packages = ("gumbel_moe", "jax", "numpyro", "equinox", "optax", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def machine() -> dict[str, Any]:
    """Where this runs."""
    return {"system": platform.platform(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind}
