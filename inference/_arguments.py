"""What the two programs' command lines share."""

import argparse
from pathlib import Path
from typing import NoReturn

from inference._tasks import TASKS
from inference.methods import METHODS, Method, find_method


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def routers(text: str) -> list[Method]:
    """Methods by their names, separated by commas; every one once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"no router named; choose from {', '.join(METHODS)}")
    return list(dict.fromkeys(router(name) for name in names))


def router(text: str) -> Method:
    """A method by its name."""
    try:
        return find_method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_shared(parser: Parser, out: str) -> None:
    """The options that both programs have."""
    parser.add_argument("--steps", type=positive, help="training steps (default: what suits the data)")
    parser.add_argument("--seed", type=not_negative, default=0, help="of everything random (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"folder for the results (default: {out})")


def data_names(also: tuple[str, ...] = ()) -> list[str]:
    """The names of the data that there are."""
    return [*TASKS, *also]


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return number
