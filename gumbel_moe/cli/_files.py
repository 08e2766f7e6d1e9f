"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from gumbel_moe.cli._exits import BadArgumentError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file beside `path`, then put it in its place: a crash leaves an older one as it was."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            write(part)
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise BadArgumentError("--out", f"cannot write {path}: {error.strerror or error}") from None


def output_folder(path: Path) -> Path:
    """The folder, made if it is not there; looked at before the work, not after it."""
    if path.exists() and not path.is_dir():
        raise BadArgumentError("--out", f"{path} is a file, not a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArgumentError("--out", f"cannot make the folder {path}: {error.strerror or error}") from None
    return _writable(path)


def output_file(path: Path) -> Path:
    """A file in a folder that is there."""
    if path.is_dir():
        raise BadArgumentError("--out", f"{path} is a folder, not a file")
    if not path.parent.is_dir():
        raise BadArgumentError("--out", f"there is no folder {path.parent}")
    _writable(path.parent)
    return path


def _writable(folder: Path) -> Path:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise BadArgumentError("--out", f"cannot write in {folder}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
