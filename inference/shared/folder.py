"""The folder of a program's results: one program writes in it at a time, and keeps what an earlier one left."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gumbel_moe._whole_file import whole_file
from inference.shared.arguments import Parser

try:
    import fcntl
except ImportError:  # not a system of the Unix family: nobody is kept out there
    fcntl = None


@contextmanager
def sole_writer(parser: Parser, folder: Path) -> Iterator[None]:
    """Create `folder` and keep other programs out of it for the block; where that fails, end with one clear line.

    The lock is the system's and on the folder itself: it ends with the process, however that ends, and leaves no file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: cannot create the folder {folder}: {error.strerror}")
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"argument --out: another program writes in {folder}; wait for it, or choose another folder")
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def keep_earlier(path: Path) -> Path | None:
    """Move an existing `path` out of the way, to the first free `name.1.json`, `name.2.json`, ...; where it went."""
    if not path.exists():
        return None
    number = 1
    while (earlier := path.with_suffix(f".{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, earlier)
    return earlier


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write `arrays` to `path` whole or not at all."""
    with whole_file(path) as part, part.open("wb") as file:  # a name would get .npz appended
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
