"""Text as bytes, of which some files are held out; by default the Python standard library's own source."""

import hashlib
import sysconfig
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt8

NUM_BYTES = 256
_BETWEEN = b"\0"  # files; in no text
_BLOCK = 2**16  # bytes of a single file that are held out together
_PARTS = 1000


class Corpus(NamedTuple):
    """Bytes to train on, and bytes of files that are held out."""

    train: np.ndarray
    """`(bytes,)` uint8: the files one after the other, a zero byte after each."""
    held_out: np.ndarray
    """`(bytes,)` uint8, of other files."""
    name: str
    """What it is, in words."""


def load_corpus(path: Path | None = None, held_out: float = 0.05) -> Corpus:
    """The text files of a folder, or a single file.

    **Arguments:**

    - `path`: a folder, all of whose files without a zero byte are read, in the order of their names; or a file, which
      is cut into blocks of 64 KiB that are taken for files. None: the standard library of this Python, `*.py`.
    - `held_out`: about this share of the files is held out. Which ones depends on their names within the folder alone
      (a cryptographic hash), so that the same files are held out everywhere, and whatever else the folder holds.

    **Raises:** `FileNotFoundError` where there is nothing at `path`; `ValueError` where it has no text to train on, or
    none that is held out, or `held_out` is not between 0 and 1.

    ```python
    >>> from models.data import load_corpus
    >>> corpus = load_corpus()
    >>> corpus.train.dtype.name, corpus.held_out.size < corpus.train.size
    ('uint8', True)

    ```
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out!r}")
    if path is not None and not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}")
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    for name, text in _blocks(path) if path is not None and path.is_file() else _files(path):
        parts[_is_held_out(name, held_out)].append(text + _BETWEEN)
    train, held = (np.frombuffer(b"".join(parts[out]), np.uint8) for out in (False, True))
    told = "the Python standard library" if path is None else str(path)
    if not train.size or not held.size:
        raise ValueError(f"{told} has {train.size} bytes to train on and {held.size} held out: give more files")
    return Corpus(train, held, told)


def draw_windows(key: PRNGKeyArray, text: UInt8[Array, " bytes"], number: int, length: int) -> UInt8[Array, "b t"]:
    """`number` windows of `length` bytes, each from a place that is drawn uniformly."""
    starts = jax.random.randint(key, (number,), 0, text.shape[0] - length + 1)
    return text[starts[:, None] + jnp.arange(length)]


def even_windows(text: np.ndarray, number: int, length: int) -> np.ndarray:
    """`(number, length)` windows spread evenly over the text, always the same; fewer where they would overlap."""
    number = max(1, min(number, len(text) // length))
    starts = np.linspace(0, len(text) - length, number).astype(int)
    return text[starts[:, None] + np.arange(length)]


def _files(folder: Path | None) -> list[tuple[str, bytes]]:
    root, pattern = (Path(sysconfig.get_path("stdlib")), "*.py") if folder is None else (folder, "*")
    # What is installed beside it is not the standard library.
    paths = sorted(path for path in root.rglob(pattern) if path.is_file() and "site-packages" not in path.parts)
    read = ((path.relative_to(root).as_posix(), path.read_bytes()) for path in paths)
    return [(name, text) for name, text in read if text and _BETWEEN not in text]


def _blocks(path: Path) -> list[tuple[str, bytes]]:
    text = path.read_bytes()
    return [(str(start // _BLOCK), text[start : start + _BLOCK]) for start in range(0, len(text), _BLOCK)]


def _is_held_out(name: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % _PARTS < share * _PARTS
