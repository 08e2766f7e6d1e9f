"""`module:function` on the command line: what a user wants tested."""

import inspect
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any

from gumbel_moe.cli._exits import BadArgumentError

NAME = "MODULE:FUNCTION"
_WANTED = (
    "a pair (estimate, exact): a function from a JAX key to gradients, or a dict of such functions by name, and the "
    "exact gradient; or a pair of functions that agree, and None"
)


def problem_of(target: str) -> tuple[Any, Any]:
    """What the function returns: an estimate, or several by name, and the exact gradient or None.

    The module is looked for in the working directory first, as by `python -m`. Errors of the user's own code are left
    to tell of themselves.
    """
    module, _, path = target.partition(":")
    thing: Any = _module(module)
    for name in path.split("."):
        if not hasattr(thing, name):
            raise _bad(_missing(thing, module, name))
        thing = getattr(thing, name)
    if not callable(thing):
        raise _bad(f"{target} is no function but {type(thing).__name__}")
    try:
        inspect.signature(thing).bind()
    except TypeError:
        raise _bad(
            f"{target} must take no arguments, got {path}{inspect.signature(thing)}; it returns {_WANTED}"
        ) from None
    except ValueError:  # a function without a signature, written in C
        pass
    returned = thing()
    if not (isinstance(returned, tuple | list) and len(returned) == 2):
        raise _bad(f"{target} must return {_WANTED}; got {_kind(returned)}")
    estimate, exact = returned
    several = isinstance(estimate, Mapping)
    if several and not (estimate and all(isinstance(name, str) for name in estimate)):
        raise _bad(f"{target} must name each estimator by a string, got {list(estimate)}")
    for name, one in estimate.items() if several else [("", estimate)]:
        of = f" of {name!r}" if several else ""
        if exact is None and not _is_pair(one):
            raise _bad(
                f"{target} must return a pair of functions{of} where the exact gradient is None, got {_kind(one)}"
            )
        if exact is not None and not callable(one):
            raise _bad(f"{target} must return a function of a key as the estimate{of}, got {_kind(one)}")
    return estimate, exact


def _module(name: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise _bad(f"{name} imports {missing}, which is not there: {error}") from None
        raise _bad(f"there is no module {missing}, neither in {here} nor among what is installed") from None


def _missing(thing: Any, module: str, name: str) -> str:
    public = [other for other in vars(thing) if not other.startswith("_") and callable(getattr(thing, other))]
    close = get_close_matches(name, public, 1)
    instead = f"; did you mean {close[0]}?" if close else ""
    return f"{module} has no {name}{instead}"


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(callable, value))


def _kind(value: Any) -> str:
    sizes = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return f"{type(value).__name__}{sizes}"


def _bad(message: str) -> BadArgumentError:
    return BadArgumentError(NAME, message)
