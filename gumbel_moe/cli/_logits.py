"""A user's own logits, from a file that cannot run code."""

from pathlib import Path

import numpy as np

from gumbel_moe.cli._exits import BadArgumentError

_PICKLED = "pickle"  # in what NumPy says of files that hold Python objects


def read_logits(path: Path) -> np.ndarray:
    """`(n, k)` float32 or float64, without NaN or +inf and with an expert for everyone."""
    logits = _read(path)
    if logits.ndim != 2 or 0 in logits.shape:
        raise _bad(path, f"must hold a matrix of n rows and k columns, got shape {logits.shape}")
    if logits.dtype.kind != "f":
        raise _bad(path, f"must hold floating-point numbers, got {logits.dtype}")
    if logits.dtype.itemsize > 8:
        raise _bad(path, f"must hold float32 or float64, got {logits.dtype}")
    logits = logits.astype(np.float64 if logits.dtype.itemsize == 8 else np.float32)
    if np.isnan(logits).any():
        raise _bad(path, f"must not hold NaN, got {np.isnan(logits).sum():,} of them")
    if np.isposinf(logits).any():
        raise _bad(path, "must not hold +inf; finite numbers, or -inf for a forbidden expert, are allowed")
    barred = np.isneginf(logits).all(axis=1)
    if barred.any():
        raise _bad(path, f"forbids every expert (-inf) in row {int(np.argmax(barred))}")
    return logits


def _read(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
        raise _bad(path, "is a .npz archive; a .npy file with one matrix is needed")
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise _bad(path, "is larger than the memory") from None
    except Exception as error:  # a damaged header can be wrong in many ways
        if isinstance(error, BadArgumentError):
            raise
        if _PICKLED in str(error):
            raise _bad(path, "is no .npy file of numbers (or holds pickled objects, which are not read)") from None
        raise _bad(path, f"is damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


def _bad(path: Path, message: str) -> BadArgumentError:
    return BadArgumentError("--logits", f"{path} {message}")
