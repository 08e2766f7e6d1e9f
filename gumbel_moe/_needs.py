"""Packages that only pictures, progress bars and files need: imported late, and missed in one line."""

from importlib import import_module
from types import ModuleType

_EXTRA = {"matplotlib", "tqdm", "h5netcdf", "h5py"}


def need(module: str, what: str) -> ModuleType:
    """The module, or an error that says what it is for and how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        raise ModuleNotFoundError(
            f"{what} needs {missing}: pip install 'gumbel_moe[diagnostics]'", name=missing
        ) from None
