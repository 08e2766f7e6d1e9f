"""Draws in a file that ArviZ and xarray read."""

from pathlib import Path
from typing import Any

from gumbel_moe._optional import need
from gumbel_moe._whole_file import whole_file


def netcdf(tree: Any) -> memoryview:
    """The file's content. HDF5 itself writes to memory alone: on a full disk it would take the process down."""
    for module in ("h5py", "h5netcdf"):
        need(module, "saving draws")
    return tree.to_netcdf(engine="h5netcdf")


class Saved:
    """A report whose `data` can be kept."""

    data: Any

    def save(self, path: str | Path) -> None:
        """Write `data` to a netCDF file, whole or not at all; `xarray.open_datatree` reads it back.

        **Raises:** `ModuleNotFoundError` without h5netcdf and h5py; `OSError` where the file cannot be written.
        """
        content = netcdf(self.data)
        with whole_file(path) as part:
            part.write_bytes(content)
