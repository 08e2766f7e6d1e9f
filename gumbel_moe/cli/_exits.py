"""Exit codes, and the error that ends a command with one line."""

FINE, BIASED, BAD_ARGUMENTS, CRASHED, INTERRUPTED = 0, 1, 2, 3, 130


class BadArgumentError(Exception):
    """What is wrong with an option of the command line, in its words; or with what is installed, for no option."""

    def __init__(self, option: str | None, message: object) -> None:
        super().__init__(f"argument {option}: {message}" if option else str(message))
