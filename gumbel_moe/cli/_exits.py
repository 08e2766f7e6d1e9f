"""How a command ends: what it prints, its exit code, and the error that is one line."""

import os
import sys

FINE, BIASED, BAD_ARGUMENTS, CRASHED, INTERRUPTED = 0, 1, 2, 3, 130


class BadArgumentError(Exception):
    """What is wrong with an option of the command line, in its words; or with what is installed, for no option."""

    def __init__(self, option: str | None, message: object) -> None:
        super().__init__(f"argument {option}: {message}" if option else str(message))


def tell(text: str) -> None:
    """Print; whoever reads may have gone (`| head`), which does not change the verdict."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
