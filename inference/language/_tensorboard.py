"""The same numbers for TensorBoard, where the package that writes them is installed."""

from pathlib import Path
from typing import Any, Self


class Board:
    """Writes event files into a folder; nothing without one, or where tensorboardX is not installed."""

    def __init__(self, folder: Path | None, first_step: int) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            return
        # Events of steps that are done again after a resume are hidden.
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, metrics: dict[str, float], under: str = "") -> None:
        """Scalars of a step."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(under + name, value, step)
