"""Finite masks: pairs so far below the rest that nobody wants them give the optimum of pairs that are forbidden.

They are an order of size of their own, and may not cost the other scores their precision.
"""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gumbel_moe.matching import solve_matching

MASKED = 0.3  # share of the pairs
FINITE = [-1e4, -1e6, -1e9, -1e30, None]  # None: the least float
SMALL = (60, 4)
LARGE = (8192, 4)  # more datapoints per expert than the compiled solver takes


def masked_problem(n, k, dtype):
    rng = np.random.default_rng(n)
    scores = rng.standard_normal((n, k)).astype(dtype)
    mask = rng.random((n, k)) < MASKED
    mask[np.arange(n), rng.integers(k, size=n)] = False
    return scores, mask


def with_masks(scores, mask):
    """The problem with every mask, `(masks, n, k)`; that of `-inf` comes last."""
    least = np.finfo(scores.dtype).min
    values = [least if value is None else value for value in FINITE]
    return np.stack([np.where(mask, np.asarray(value, scores.dtype), scores) for value in [*values, -np.inf]])


def forced(n, k, dtype):
    """Nobody but a few datapoints are allowed at expert 0, which has to take `n // k` of them."""
    scores, mask = masked_problem(n, k, dtype)
    mask[:] = False
    mask[n // (2 * k) :, 0] = True
    return scores, mask


def best_total(scores, places, counted=None):
    """Of the scores, or of `counted` at the best assignment for the scores."""
    columns = np.repeat(scores, places, axis=1).astype(np.float64)
    rows, chosen = linear_sum_assignment(columns, maximize=True)
    counted = scores if counted is None else counted
    return np.repeat(counted, places, axis=1)[rows, chosen].sum(dtype=np.float64)


def check(problems, scores, mask, places, want, masks_used=0, adds_in_double=False):
    """The compiled solver adds in double precision: a mask that has to be used hides what is below its last digit."""
    match = jax.tree.map(np.asarray, jax.jit(lambda s: solve_matching(s, places))(problems))
    n, k = scores.shape
    eps = np.finfo(scores.dtype).eps
    index = np.arange(n)
    for values, assignment, gap in zip(problems, match.assignment, match.gap, strict=True):
        if assignment[0] < 0:
            assert masks_used
            assert np.isneginf(values[mask]).all()
            continue
        assert (np.bincount(assignment, minlength=k) <= places).all()
        used = mask[index, assignment]
        total = scores[index, assignment][~used].sum(dtype=np.float64)
        peak = float(np.abs(values[mask]).max()) if masks_used else 1
        hidden = np.finfo(np.float64).eps * peak if adds_in_double else 0
        right = used.sum() == masks_used and abs(total - want) <= 4 * n * (eps + hidden)
        assert right or gap > n * eps * peak, (values[mask][0], used.sum(), total, want, gap)
        if not masks_used:
            assert right
            assert 0 <= gap <= 4 * n * eps


@pytest.mark.parametrize("k", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_masks_nobody_needs(k, solver, x64):
    dtype = np.float64 if x64 else np.float32
    n = SMALL[0]
    scores, mask = masked_problem(n, k, dtype)
    problems = with_masks(scores, mask)
    check(problems, scores, mask, n // k, best_total(problems[-1], n // k))


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 2])
def test_masks_that_have_to_be_used(k, solver, x64):
    dtype = np.float64 if x64 else np.float32
    n = SMALL[0]
    scores, mask = forced(n, k, dtype)
    needed = n // k - n // (2 * k)
    # A mask of its own size in an oracle that counts in double precision: far below the rest, no farther.
    level = np.where(mask, scores * 0 - 1e4, scores)
    want = best_total(level, n // k, np.where(mask, 0, scores))
    check(with_masks(scores, mask), scores, mask, n // k, want, needed, adds_in_double=solver == "compiled")


@pytest.mark.slow
@pytest.mark.parametrize("k", [4, 2])
def test_many_datapoints(k, solver, x64):
    dtype = np.float64 if x64 else np.float32
    n = LARGE[0]
    scores, mask = masked_problem(n, k, dtype)
    problems = with_masks(scores, mask)
    match = jax.jit(lambda s: solve_matching(s, n // k))(problems[-1])
    assert match.gap <= 4 * n * np.finfo(dtype).eps  # certified by its own prices
    own = np.take_along_axis(scores, np.asarray(match.assignment)[:, None], 1)
    check(problems, scores, mask, n // k, own.sum(dtype=np.float64))


@pytest.mark.slow
@pytest.mark.parametrize("by", [1e8, -1e30])
def test_shifted_rows(by, solver, x64):
    """Rounded to what the shift leaves of them, the scores are all there is to know: nothing more may be lost."""
    dtype = np.float64 if x64 else np.float32
    n, k = SMALL
    scores, mask = masked_problem(n, k, dtype)
    scores[::2] += dtype(by)
    scores = np.where(mask, -np.inf, scores)
    less = scores - scores.max(axis=1, keepdims=True)
    match = jax.jit(lambda s: solve_matching(s, n // k))(scores)
    own = np.take_along_axis(less, np.asarray(match.assignment)[:, None], 1)
    assert own.sum(dtype=np.float64) == pytest.approx(best_total(less, n // k), abs=float(32 * n * np.finfo(dtype).eps))
