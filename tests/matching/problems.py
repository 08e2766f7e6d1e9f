"""Families of assignment problems, capacities for them, and the oracle: SciPy on expanded expert columns."""

import numpy as np
from scipy.optimize import linear_sum_assignment

SHAPES = [(1, 1), (1, 2), (1, 4), (3, 5), (7, 1), (6, 2), (15, 2), (9, 3), (17, 4), (24, 8), (40, 5), (64, 16)]
FAMILIES = [
    "normal",
    "wide",
    "skewed",
    "ties",
    "constant",
    "one_preferred",
    "clustered",
    "heavy",
    "spread_1e4",
    "forbidden",
]
CAPACITIES = ["balanced", "unequal", "loose", "one_holds_all", "unlimited"]


def scores(family, n, k, seed):
    rng = np.random.default_rng([seed, FAMILIES.index(family), n, k])
    normal = rng.normal(size=(n, k))
    match family:
        case "normal":
            return normal
        case "wide":
            return 30 * normal
        case "skewed":
            return normal + 5 * rng.normal(size=k)
        case "ties":
            return rng.integers(0, 4, size=(n, k)).astype(float)
        case "constant":
            return np.full((n, k), 1.5)
        case "one_preferred":
            return normal + 50 * (np.arange(k) == k - 1)
        case "clustered":
            return rng.normal(size=(3, k))[rng.integers(0, 3, size=n)] + 1e-3 * normal
        case "heavy":
            return rng.standard_cauchy(size=(n, k))
        case "spread_1e4":
            return rng.uniform(-1e4, 1e4, size=(n, k))
        case "forbidden":
            # A third of the pairs is barred, but for those of a random balanced assignment, so that one is left.
            barred = rng.uniform(size=(n, k)) < 1 / 3
            barred[np.arange(n), rng.permutation(np.arange(n) % k)] = False
            return np.where(barred, -np.inf, normal)
    raise ValueError(family)


def capacities(kind, n, k, seed):
    """`(k,)` capacities, each at least 1, that hold `n` datapoints; equal ones also hold any balanced assignment."""
    rng = np.random.default_rng([seed, n, k])
    even = -(-n // k)
    match kind:
        case "balanced":
            exact = n // k + (np.arange(k) < n % k)
            return np.maximum(exact, 1)
        case "unequal":
            return 1 + np.bincount(rng.integers(0, k, size=max(n - k, 0)), minlength=k)
        case "loose":
            return np.full(k, -(-5 * even // 4))
        case "one_holds_all":
            return np.where(np.arange(k) == 0, n, 1)
        case "unlimited":
            return np.full(k, n + 3)
    raise ValueError(kind)


def best_value(s, capacity):
    """The largest total score, in float64; None when no assignment is feasible."""
    if len(s) == 0:
        return 0.0
    expanded = np.repeat(np.asarray(s, np.float64), np.minimum(capacity, len(s)), axis=1)
    try:
        row, column = linear_sum_assignment(expanded, maximize=True)
    except ValueError:
        return None
    return expanded[row, column].sum()
