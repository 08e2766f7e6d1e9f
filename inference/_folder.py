"""The folder of a program's results, in which one program writes at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference._arguments import Parser

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
