"""A report in a file: its draws, which ArviZ and xarray read, or a page to look at."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from gumbel_moe._optional import need
from gumbel_moe._whole_file import whole_file

_PAGES = (".html", ".htm")


def netcdf(tree: Any) -> memoryview:
    """The file's content. HDF5 itself writes to memory alone: on a full disk it would take the process down."""
    for module in ("h5py", "h5netcdf"):
        need(module, "saving draws")
    return tree.to_netcdf(engine="h5netcdf")


class Saved(ABC):
    """A report whose `data` can be kept, or shown as a page."""

    data: Any

    @abstractmethod
    def page(self) -> str:
        """One HTML page with the verdict, tables and pictures: no script, and no network needed.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """

    def save(self, path: str | Path) -> None:
        """Write the report, whole or not at all, over what was there: `page()` to a name that ends in `.html`, else
        `data` as netCDF, which `xarray.open_datatree` reads back.

        **Raises:** `ModuleNotFoundError` without matplotlib for a page, or h5netcdf and h5py for `data`; `OSError`
        where the file cannot be written.
        """
        content = self.page().encode() if Path(path).suffix.lower() in _PAGES else netcdf(self.data)
        with whole_file(path) as part:
            part.write_bytes(content)
