"""Packages that only pictures, progress bars and files need: imported late, and missed in one line."""

from importlib import import_module
from types import ModuleType


def need(module: str, what: str) -> ModuleType:
    """The module, or an error that says what it is for and how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ModuleNotFoundError(
            f"{what} needs {error.name}: pip install 'gumbel_moe[diagnostics]'", name=error.name
        ) from None
