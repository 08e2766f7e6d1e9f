"""Packages that only pictures, progress bars and files need: imported late, and missed in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress_bar(wanted: bool, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """What to call with the number of steps done."""
    if not wanted:
        yield lambda done: None
        return
    with need("tqdm", "progress=True").tqdm(total=total, unit=f" {unit}") as bar:
        yield bar.update
