"""Problems with several experts for a datapoint, and the oracle: HiGHS on the linear program, which is integral."""

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import kron, vstack

from tests.matching import problems

KINDS = ["exact", "unequal", "loose", "one_holds_all"]


def capacities(kind, n, k, each, seed):
    """`(k,)` capacities that hold `each` experts for `n` datapoints; no forbidden pair is allowed for."""
    rng = np.random.default_rng([seed, n, k, each])
    even = n * each // k + (np.arange(k) < n * each % k)
    match kind:
        case "exact":
            return np.maximum(even, 1)
        case "unequal":
            for _ in range(n):
                source, target = rng.integers(0, k, size=2)
                if even[source] > 1 and even[target] < n:
                    even[source] -= 1
                    even[target] += 1
            return np.maximum(even, 1)
        case "loose":
            return even + 1 + rng.integers(0, 3, size=k)
        case "one_holds_all":  # and more
            return np.where(np.arange(k) == 0, n + 2, np.minimum(even + 1, n))
    raise ValueError(kind)


def grid(n, k, each, seeds):
    """Scores `(problems, n, k)` and capacities `(problems, k)` of every family and kind."""
    every = [(family, kind, seed) for family in problems.FAMILIES for kind in KINDS for seed in seeds]
    scores = np.stack([problems.scores(family, n, k, seed) for family, _, seed in every])
    return scores, np.stack([capacities(kind, n, k, each, seed) for _, kind, seed in every])


def best_value(s, capacity, each, barred=()):
    """The largest total score, in float64; None when no assignment is feasible. Pairs can be `barred`."""
    n, k = s.shape
    allowed = np.isfinite(s)
    for pair in barred:
        allowed[pair] = False
    rows, columns = kron(np.eye(n), np.ones((1, k))), kron(np.ones((1, n)), np.eye(k))
    bounds = np.stack([np.zeros(n * k), allowed.ravel()], axis=1)
    costs = -np.where(allowed, s, 0).ravel()
    found = linprog(
        costs, A_ub=vstack([columns]), b_ub=np.minimum(capacity, n), A_eq=rows, b_eq=np.full(n, each), bounds=bounds
    )
    assert found.status in (0, 2), found.message
    if found.status == 2:
        return None
    chosen = found.x.reshape(n, k) > 0.5
    assert chosen.sum() == n * each
    return s[chosen].sum()


def check(s, capacity, each, match, tolerance):
    """`match` is feasible, worth as much as the oracle's, and proves it by its prices."""
    best = best_value(s, capacity, each)
    z, prices = np.asarray(match.assignment), np.asarray(match.prices, np.float64)
    n, k = s.shape
    assert (z.shape, z.dtype) == ((n, each), np.int32)
    if best is None:
        assert np.isneginf(match.value)
        assert (z == -1).all()
        assert np.isnan(match.gap)
        assert np.isnan(prices).all()
        return
    assert (np.diff(z, axis=1) > 0).all()  # ascending, and so distinct
    load = np.bincount(z.ravel(), minlength=k)
    assert (load <= capacity).all()
    finite = s[np.isfinite(s)]
    scale = max(1.0, np.abs(finite).max())
    close = {"rel": tolerance, "abs": tolerance * scale}
    total = np.take_along_axis(s, z, axis=1).sum()
    assert abs(total - best) <= tolerance * max(scale, abs(best))
    assert abs(match.value - best) <= tolerance * each * max(scale, abs(best)), close
    assert 0 <= match.gap <= 1e-4 * max(finite.max() - finite.min(), 1e-4)
    assert (prices >= 0).all()
    assert (prices[load < capacity] == 0).all()
    dual = np.sort(s - prices, axis=1)[:, k - each :].sum() + (capacity * prices).sum()
    assert abs(dual - best) <= 10 * n * each * tolerance * scale
