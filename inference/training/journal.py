"""The metrics of a run, one JSON object per line."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from gumbel_moe._whole_file import write_text


class Journal:
    """The file `metrics.jsonl` of a run; lines go to disk as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def drop_after(self, step: int) -> None:
        """Forget lines of later steps, and one that was cut short: a resumed run writes them again."""
        if not self._path.exists():
            return
        kept = [line for line in self._path.read_text().splitlines() if _step(line) <= step]
        write_text(self._path, "".join(f"{line}\n" for line in kept))

    def last(self) -> dict[str, Any]:
        """The line written last."""
        return json.loads(self._path.read_text().splitlines()[-1])

    def add(self, step: int, metrics: Mapping[str, Array | np.ndarray]) -> dict[str, Any]:
        """Append the metrics of `step`, and give the line back as it was written; None for what is not finite."""
        line = {"step": step, **{name: _listed(np.asarray(value)) for name, value in metrics.items()}}
        with self._path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return line


class NoJournal(Journal):
    """Of a process beside the one that writes."""

    def drop_after(self, step: int) -> None:
        """Nothing."""

    def add(self, step: int, metrics: Mapping[str, Array | np.ndarray]) -> dict[str, Any]:
        """Nothing is written."""
        return {}


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def _listed(value: np.ndarray) -> Any:
    if value.ndim:
        return [_listed(entry) for entry in value]
    return float(value) if np.isfinite(value) else None
