"""The three files of a report, all whole or none."""

from pathlib import Path
from typing import Any

from gumbel_moe._optional import need
from gumbel_moe.cli._exits import BadArgumentError
from gumbel_moe.cli._files import whole_output

FILES = ("draws.nc", "report.json", "report.html")


def look_for_packages(command: str) -> None:
    """What writing and drawing need, before the work and not after it."""
    for module in ("matplotlib", "tqdm", "h5py", "h5netcdf"):
        try:
            need(module, f"gumbel-moe {command}")
        except ModuleNotFoundError as error:
            raise BadArgumentError(None, error) from None


def write_report(folder: Path, tree: Any, numbers: str, page: str) -> None:
    """Draws, numbers and the page into `folder`."""
    from gumbel_moe.diagnostics._save import netcdf  # which takes seconds to import

    contents = (netcdf(tree), numbers.encode(), page.encode())
    with whole_output(*(folder / name for name in FILES)) as parts:
        for part, content in zip(parts, contents, strict=True):
            part.write_bytes(content)
