"""Problems large enough for the core, and an oracle fast enough for them: POT's network simplex."""

import jax.numpy as jnp
import numpy as np
import ot

FAMILIES = ["random", "random3", "skewed", "ties", "clustered"]
KINDS = ["even", "uneven", "loose"]
_BARRED = 1e3  # in units of the range of the scores: what POT is told that a forbidden pair costs


def scores(family, n, k, seed):
    """In the float width that is in force."""
    rng = np.random.default_rng([seed, n, k])
    normal, gumbel = rng.normal(size=(n, k)), rng.gumbel(size=(n, k))
    match family:
        case "random":
            s = normal + gumbel
        case "random3":
            s = 3 * normal + gumbel
        case "skewed":
            s = normal + 3 * rng.normal(size=k) + gumbel
        case "ties":
            s = rng.integers(0, 10, size=(n, k)).astype(float)
        case "clustered":
            s = rng.normal(size=(10, k))[rng.integers(0, 10, size=n)] + 1e-3 * normal
        case "mixed":
            # Half the rows tie, the other half have an order far finer than any noise that breaks the ties.
            s = rng.integers(0, 10, size=(n, k)) + 1e-4 * normal * (np.arange(n) % 2)[:, None]
        case "half":
            s = np.where((np.arange(n) % 2)[:, None], normal + gumbel, rng.integers(0, 3, size=(n, k)))
        case _:
            raise ValueError(family)
    return jnp.asarray(s, float)


def barred(s, seed):
    """A third of the pairs is forbidden, but for those of a random assignment that any even capacities hold."""
    n, k = s.shape
    rng = np.random.default_rng(seed)
    forbid = rng.uniform(size=(n, k)) < 1 / 3
    forbid[np.arange(n), rng.permutation(np.arange(n) % k)] = False
    return jnp.where(forbid, -jnp.inf, s)


def capacities(kind, n, k):
    even = n // k + (np.arange(k) < n % k)
    match kind:
        case "even":
            return even
        case "uneven":
            moved = even // 2 * (np.arange(k) % 3 == 0)
            return even - moved + np.roll(moved, 1)
        case "loose":
            return even + n // (4 * k)
    raise ValueError(kind)


def best_value(s, capacity):
    """The largest total score, in float64. A row of zeros with the weight of the free places takes what is not used."""
    s = np.asarray(s, np.float64)
    n = len(s)
    spare = capacity.sum() - n
    allowed = np.isfinite(s)
    low = s[allowed].min() - _BARRED * (np.ptp(s[allowed]) + 1)
    costs = -np.where(allowed, s, low)
    supply = np.ones(n)
    if spare:
        costs, supply = np.vstack([costs, np.zeros(s.shape[1])]), np.append(supply, spare)
    # The default limit stops the network simplex early, with a warning and no optimum.
    plan, log = ot.emd(supply, capacity.astype(float), costs, numItermax=10**9, log=True)
    assert log["warning"] is None
    plan = plan[:n]
    assert np.isin(plan.round(9), [0, 1]).all()
    assert not (plan.round(9)[~allowed]).any()
    return s[plan > 0.5].sum()


def check(s, capacity, match, relative):
    """The assignment fits, is worth what POT's is, and the prices prove it."""
    n, k = s.shape
    s = np.asarray(s, np.float64)
    z, prices = np.asarray(match.assignment), np.asarray(match.prices, np.float64)
    load = np.bincount(z, minlength=k)
    assert (load <= capacity).all()
    total = s[np.arange(n), z].sum()
    best = best_value(s, capacity)
    np.testing.assert_allclose(total, best, rtol=relative)
    np.testing.assert_allclose(match.value, best, rtol=10 * relative)
    finite = s[np.isfinite(s)]
    assert 0 <= match.gap <= 1e-5 * np.ptp(finite)
    assert (prices >= 0).all()
    assert (prices[load < capacity] == 0).all()
    # The gap that is reported, once more from its definition: the dual's value less the primal's.
    dual = (s - prices).max(axis=1).sum() + (capacity * prices).sum()
    np.testing.assert_allclose(dual, best, rtol=10 * relative)
