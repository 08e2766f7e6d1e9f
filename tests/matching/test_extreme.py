"""Numbers from both ends of the floats' range, masks, ties and wild prices, against brute force.

Whatever they are, an assignment respects the capacities, and is the best one within its gap; or there is none.
"""

import itertools

import jax
import numpy as np
import pytest

from gumbel_moe.matching import _compiled, _solve, solve_matching

SHAPES = [(5, 2, (5, 1)), (5, 3, (2, 2, 2)), (6, 3, (2, 2, 2))]
PROBLEMS = 400  # of every shape and kind of numbers

needs_it = pytest.mark.skipif(not _compiled.AVAILABLE, reason="installed without the compiled solver")


def numbers(dtype):
    """What scores and prices are taken from, kind by kind."""
    f = np.finfo(dtype)
    signed = [x * sign for x in (f.max, f.max / 3, f.tiny, f.smallest_subnormal, 1.0) for sign in (1, -1)]
    return {
        "ends": np.array([f.max, -f.max, 0, -np.inf], dtype),
        "all": np.array([*signed, 0, -0.0, -np.inf, -1e30], dtype),
        "small": np.array([f.tiny, -f.tiny, f.smallest_subnormal, 0], dtype),
        "ties": np.array([0, 1, -1, -np.inf], dtype),
    }


def problems(dtype, kind, n, k):
    """Scores `(problems, n, k)`, none without an expert for a datapoint, and prices `(problems, k)`."""
    rng = np.random.default_rng(n * k)
    pool = numbers(dtype)[kind]
    s, u = rng.choice(pool, (PROBLEMS, n, k)), rng.choice(np.append(pool, np.nan), (PROBLEMS, k))
    s[..., 0] = np.where(np.isinf(s).all(axis=-1), 0, s[..., 0])
    return s, u


def best_totals(s, capacity):
    """`(problems,)` the best total in extended precision, `-inf` without a feasible assignment."""
    n, k = s.shape[1:]
    every = np.array(list(itertools.product(range(k), repeat=n)))
    every = every[((every[..., None] == np.arange(k)).sum(axis=1) <= capacity).all(axis=1)]
    totals = s.astype(np.longdouble)[:, np.arange(n), every].sum(axis=-1)
    return totals.max(axis=1)


def solved(s, capacity, u):
    match = jax.jit(lambda s, u: solve_matching(s, capacity, prices=u))(s, u)
    return jax.tree.map(np.asarray, match)


def flaws(s, capacity, match):
    """Problems whose answer is wrong, unless the gap admits it; and what the totals lack of the best ones."""
    f = np.finfo(s.dtype)
    n, k = s.shape[1:]
    best = best_totals(s, capacity)
    peak = np.where(np.isfinite(s), np.abs(s), 0).max(axis=(1, 2)).astype(np.longdouble)
    found = (match.assignment >= 0).all(axis=1)
    z = np.maximum(match.assignment, 0)
    total = np.take_along_axis(s.astype(np.longdouble), z[..., None], axis=2).sum(axis=(1, 2))
    load = (z[..., None] == np.arange(k)).sum(axis=1)
    rounding = 4 * n * (f.eps * peak + f.tiny)
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.abs(match.value - total) <= rounding
        held = np.where(np.abs(total) > f.max, match.value == np.sign(total) * np.inf, near)
        # Just at the end of the range, either will do.
        held |= (np.abs(np.abs(total) - f.max) <= rounding) & (near | np.isinf(match.value))
        right = (load <= capacity).all(axis=1) & held & (match.gap >= 0)
        lost = np.where(found, best - total, np.nan)
        right &= lost <= match.gap.astype(np.longdouble) + rounding
    nothing = (match.assignment == -1).all(axis=1) & np.isnan(match.prices).all(axis=1) & np.isnan(match.gap)
    none = nothing & np.isneginf(match.value)
    return np.flatnonzero(~np.where(np.isneginf(best), none, found & right)), lost


@needs_it
@pytest.mark.parametrize("kind", ["ends", "all", "small", "ties"])
@pytest.mark.parametrize(("n", "k", "capacity"), SHAPES)
def test_compiled_solver(n, k, capacity, kind, x64):
    dtype = np.float64 if x64 else np.float32
    s, u = problems(dtype, kind, n, k)
    match = solved(s, capacity, u)
    wrong, lost = flaws(s, capacity, match)
    assert not wrong.size, s[wrong[0]]
    # In double precision, where the compiled solver counts, next to nothing is lost whatever the gap admits.
    feasible = match.assignment[:, 0] >= 0
    peak = np.where(np.isfinite(s), np.abs(s), 0).max(axis=(1, 2))[feasible].astype(np.longdouble)
    assert (lost[feasible] <= 16 * n * k * (peak * np.finfo(np.float64).eps + np.finfo(dtype).tiny)).all()


@needs_it
def test_a_wrong_answer_is_found():
    s, u = problems(np.float32, "ties", *SHAPES[1][:2])
    match = solved(s, SHAPES[1][2], u)
    moved = match.assignment.copy()
    moved[:, [0, 1]] = moved[:, [1, 0]]
    wrong, _ = flaws(s, SHAPES[1][2], match._replace(assignment=moved))
    assert wrong.size > PROBLEMS / 10


@needs_it
def test_prices_at_the_end_of_the_range():
    """A difference of two finite scores that overflowed once led out of the solver's arrays."""
    most = np.finfo(np.float64).max
    rows = [[-most, 0], [-np.inf, most], [0, -np.inf], [-np.inf, -most], [most, -most], [-np.inf, most]]
    s = np.array([*rows, [-most, 0], [-most, -np.inf], [0, 0], [-most, -np.inf]])
    with jax.enable_x64(True):
        match = solved(s, (10, 1), np.array([most, most]))
        assert (match.assignment == -1).all()
        assert np.isneginf(match.value)
        wrong, _ = flaws(s[None], (10, 4), solved(s[None], (10, 4), np.array([[most, most]])))
        assert not wrong.size


@needs_it
@pytest.mark.parametrize("sign", [1, -1])
def test_a_total_beyond_the_range(sign):
    """It is infinite, of the right sign, and what goes before it does not overflow."""
    high, low = sign * 3e38, sign * 1e38
    nowhere = np.full(2, np.nan, np.float32)
    match = solved(np.array([[high, low], [high, low]], np.float32), (1, 1), nowhere)
    assert match.value == sign * np.inf
    assert 0 <= match.gap <= 1e32  # half a unit in the last place of the price
    match = solved(np.array([[high] * 2, [high] * 2, [-high] * 2], np.float32), (2, 1), nowhere)
    assert match.value == pytest.approx(high, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ends", "all", "small", "ties"])
@pytest.mark.parametrize(("n", "k", "capacity"), SHAPES)
def test_search(n, k, capacity, kind, x64, monkeypatch):
    """The search in JAX counts in the scores' own width; its gap has to admit what that costs."""
    monkeypatch.setattr(_solve, "suits", lambda n, k, each: False)
    s, u = problems(np.float64 if x64 else np.float32, kind, n, k)
    wrong, _ = flaws(s, capacity, solved(s, capacity, u))
    assert not wrong.size, s[wrong[0]]
