"""A parser that says what is wrong in one line, and the numbers that it reads."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gumbel_moe.cli._exits import BAD_ARGUMENTS, BadArgumentError

_MOST = 2**31 - 1
_MOST_DRAWS = 10_000_000
_MOST_SCALE = 1e30  # the logits of a mixture are sums of several normal numbers, in float32


class Parser(argparse.ArgumentParser):
    """Without abbreviated options: a typing error is not guessed at."""

    def __init__(self, **settings: object) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,  # pyright: ignore[reportArgumentType]
        )

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2."""
        self.exit(BAD_ARGUMENTS, f"{self.prog}: error: {message}\n")


def add_router(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """The option `--router`, one of `names`, with `-` or `_`."""
    parser.add_argument(
        "--router",
        type=lambda text: text.replace("-", "_"),
        required=True,
        choices=names,
        metavar="NAME",
        help=", ".join(names),
    )


def add_floor(parser: argparse.ArgumentParser, default: float | None, said: str) -> None:
    """The option `--floor`."""
    about = f"draw from (1 - E) p + E / k, and weight accordingly (default: {said})"
    parser.add_argument("--floor", type=share, default=default, metavar="E", help=about)


def add_experts_per_datapoint(parser: argparse.ArgumentParser, said: str) -> None:
    """The option `--experts-per-datapoint`."""
    parser.add_argument("--experts-per-datapoint", type=whole(1, 1024), metavar="M", help=said)


def add_draws(parser: argparse.ArgumentParser, of_rate: str, of_seed: str) -> None:
    """How many gradients a test draws, at which false-fail rate, from which seed."""
    option = parser.add_argument
    option("--draws", type=whole(4, _MOST_DRAWS), default=2000, help="gradients drawn in each chain (default: 2000)")
    option("--chains", type=whole(1, 1000), default=4, help="independent series of draws (default: 4)")
    option("--false-fail-rate", type=rate, default=1e-6, metavar="R", help=f"{of_rate} (default: 1e-6)")
    option("--seed", type=whole(0), default=0, help=f"{of_seed} (default: 0)")


def check_draws(options: argparse.Namespace) -> None:
    """Of all chains together, not too many to wait for."""
    if options.draws * options.chains > _MOST_DRAWS:
        raise BadArgumentError("--draws", f"times --chains must be at most {_MOST_DRAWS:,}")


def add_out(parser: argparse.ArgumentParser, metavar: str, said: str, *, required: bool = True) -> None:
    """The options `--out` and `--force`."""
    parser.add_argument("--out", type=Path, required=required, metavar=metavar, help=said)
    parser.add_argument("--force", action="store_true", help="replace files of --out that are there already")


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """Reads a whole number in a range."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least:,} to {most:,}, got {text!r}")
        return number

    return read


def places(text: str) -> int | tuple[int, ...]:
    """Reads a capacity: one number for all experts, or one for each, separated by commas."""
    numbers = tuple(whole(1)(part.strip()) for part in text.split(","))
    return numbers if "," in text else numbers[0]


def scale(text: str) -> float:
    """Reads a standard deviation of logits."""
    number = _number(text)
    if not 0 <= number <= _MOST_SCALE:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to {_MOST_SCALE:g}, got {text!r}")
    return number


def rate(text: str) -> float:
    """Reads a probability, neither 0 nor 1."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, got {text!r}")
    return number


def share(text: str) -> float:
    """Reads a number from 0 to below 1."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text!r}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
