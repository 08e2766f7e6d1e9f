"""What the programs' command lines share."""

import argparse
from pathlib import Path
from typing import NoReturn


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


def add_shared(parser: Parser, out: str, *, trains: bool = True, holds: str = "folder for the results") -> None:
    """The options that all programs have, or all that train."""
    if trains:
        parser.add_argument("--steps", type=positive, help="training steps (default: what suits the data)")
    parser.add_argument("--seed", type=not_negative, default=0, help="of everything random (default: 0)")
    parser.add_argument("--out", type=Path, default=Path(out), help=f"{holds} (default: {out})")


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return number
