"""What `--out` may name, looked at before the work: no file that is there, unless `--force` is given; and files that
are there whole or not at all.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gumbel_moe._whole_file import other_than_file, whole_file
from gumbel_moe.cli._exits import BadArgumentError


@contextmanager
def whole_output(*paths: Path) -> Iterator[list[Path]]:
    """Files to fill that take the places of `paths`; that one cannot be written is what is wrong with `--out`."""
    try:
        with ExitStack() as stack:
            yield [stack.enter_context(whole_file(path)) for path in paths]
    except OSError as error:
        names = ", ".join(map(str, paths))
        raise BadArgumentError("--out", f"cannot write {names}: {error.strerror or error}") from None


@contextmanager
def output_folder(path: Path, names: Sequence[str], force: bool) -> Iterator[Path]:
    """The folder for files of these names, made if it is not there; what was made goes again if the block fails."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    if path.exists() and not path.is_dir():
        raise BadArgumentError("--out", f"{path} is {other_than_file(path) or 'a file'}, not a folder")
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadArgumentError("--out", f"cannot make the folder {path}: {error.strerror or error}") from None
        _check_writable(path)
        for name in names:
            _check_file(path / name, force)
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it has something in it by now
                folder.rmdir()
        raise


def output_file(path: Path, source: Path, force: bool) -> Path:
    """A file in a folder that is there, and neither `source`, the file of `--logits`, nor what this program prints to.

    So `/dev/stdout` is refused, wherever it leads to.
    """
    _check_kind(path)
    if not path.parent.is_dir():
        raise BadArgumentError("--out", f"there is no folder {path.parent}")
    if path.exists():
        if path.samefile(source):
            raise BadArgumentError("--out", f"{path} is the file of --logits, which would be lost")
        for name, stream in (("output", sys.stdout), ("errors", sys.stderr)):
            if _prints_to(stream, path):
                raise BadArgumentError("--out", f"{path} is where this program prints its {name}")
    _check_file(path, force)
    _check_writable(Path(os.path.realpath(path)).parent)
    return path


def _check_file(path: Path, force: bool) -> None:
    _check_kind(path)
    if path.exists() and not force:
        raise BadArgumentError("--out", f"{path} is there already; --force replaces it")


def _check_kind(path: Path) -> None:
    try:
        kind = other_than_file(path)
    except OSError as error:
        raise BadArgumentError("--out", f"cannot write {path}: {error.strerror or error}") from None
    if kind:
        raise BadArgumentError("--out", f"{path} is {kind}, not a file")


def _prints_to(stream: object, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, ValueError, AttributeError):  # closed, or no file of the system's
        return False


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadArgumentError("--out", f"cannot write in {folder}: {error.strerror or error}") from None
