"""Files that are there whole or not at all."""

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL
from pathlib import Path
from typing import Any

_OTHERS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A file to fill, beside `path`, that takes its place at the end of the block.

    After an error, Ctrl-C or a full disk, what was at `path` is as it was, and nothing else is left; only a process
    that is killed leaves its `.*.part`. A symbolic link is followed, and an older file's permissions are kept.
    Several files in one `with` are all filled before the first takes its place.

    **Raises:** `OSError`, also where `path` is a folder, device, pipe or socket: these cannot be replaced as a whole.
    """
    if kind := other_than_file(path):
        raise OSError(EINVAL, f"Is {kind}, not a file", str(path))
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less what the umask takes away
    try:
        yield part
        with suppress(FileNotFoundError):
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        _to_disk(part)  # or a power cut could leave the new name on an empty file
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # not every system can do this to a folder
        _to_disk(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` whole or not at all, in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` to `path` whole or not at all; NaN and infinities, which JSON has not, raise `ValueError`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def other_than_file(path: str | Path) -> str | None:
    """What is at `path`, in words, if that is neither a regular file nor nothing; links are followed."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else _OTHERS.get(stat.S_IFMT(mode), "something else")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
