"""SciPy's solver for square problems, on expert columns repeated once per place."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def expanded(scores: np.ndarray, capacity: int) -> np.ndarray:
    """A column for every place, `(n, k * capacity)` float64."""
    return np.repeat(np.asarray(scores, np.float64), capacity, axis=1)


def best_total(columns: np.ndarray) -> float:
    """The best total of expanded scores."""
    row, column = linear_sum_assignment(columns, maximize=True)
    return float(columns[row, column].sum())


def scipy_total(scores: np.ndarray, capacity: int) -> float:
    """The best total, everything included."""
    return best_total(expanded(scores, capacity))
