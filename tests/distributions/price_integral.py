"""The integral over prices spelled out in NumPy: an oracle for three and four experts."""

import itertools

import numpy as np


def integral_on_a_grid(logits, assignment, capacity, reach, ticks):
    """`log P` by the midpoint rule on a plain grid of prices up to `reach`, every full expert an axis."""
    n, k = logits.shape
    loads = np.bincount(assignment, minlength=k)
    free = loads < capacity
    axes = np.flatnonzero(~free) if free.any() else np.arange(1, k)
    step = (1 if free.any() else 2) * reach / ticks
    start = step / 2 if free.any() else -reach + step / 2
    line = start + step * np.arange(ticks)
    total, largest = 0.0, -np.inf
    for first in line:  # one slice at a time
        points = np.array(list(itertools.product(line, repeat=len(axes) - 1))).reshape(-1, len(axes) - 1)
        prices = np.zeros((len(points), k))
        prices[:, axes[0]] = first
        prices[:, axes[1:]] = points
        shifted = logits[None] - prices[:, None]
        log_p = shifted - np.logaddexp.reduce(shifted, axis=2, keepdims=True)
        p = np.exp(log_p)
        rates = np.stack([p[:, assignment == expert].sum(axis=1) for expert in range(k)], axis=1)
        minor = (np.diag(loads) - rates)[:, axes][:, :, axes]
        sign, log_det = np.linalg.slogdet(minor)
        value = np.where(sign > 0, log_det, -np.inf) + log_p[:, np.arange(n), assignment].sum(axis=1)
        new = max(largest, value.max())
        total = total * np.exp(largest - new) + np.exp(value - new).sum()
        largest = new
    return largest + np.log(total) + len(axes) * np.log(step)
