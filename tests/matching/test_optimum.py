"""`solve_matching` against SciPy's assignment solver on expanded columns, over a grid of problems."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import Matching, solve_matching
from tests.matching import problems

pytestmark = pytest.mark.usefixtures("solver")

SEEDS = range(8)
GRID = list(itertools.product(problems.FAMILIES, problems.CAPACITIES, SEEDS))


def check(s, capacity, match, tolerance):
    """`match` is feasible, worth as much as the oracle's, and proves it by its prices."""
    best = problems.best_value(s, capacity)
    if best is None:
        assert np.isneginf(match.value)
        assert (np.asarray(match.assignment) == -1).all()
        assert np.isnan(match.gap)
        assert np.isnan(match.prices).all()
        return
    n, k = s.shape
    z, prices = np.asarray(match.assignment), np.asarray(match.prices, np.float64)
    load = np.bincount(z, minlength=k)
    assert z.dtype == np.int32
    assert (load <= capacity).all()
    finite = s[np.isfinite(s)]
    scale = max(1.0, np.abs(finite).max())
    assert s[np.arange(n), z].sum() == pytest.approx(best, rel=tolerance, abs=tolerance * scale)
    assert match.value == pytest.approx(best, rel=tolerance, abs=tolerance * scale)
    assert 0 <= match.gap <= 1e-4 * max(finite.max() - finite.min(), 1e-4)
    assert (prices >= 0).all()
    assert (prices[load < capacity] == 0).all()
    dual = (s - prices).max(axis=1).sum() + (capacity * prices).sum()
    assert dual == pytest.approx(best, rel=10 * tolerance, abs=10 * n * tolerance * scale)


WIDTHS = {"float32": (False, 1e-5), "float64": (True, 1e-10)}


# 12 shapes x 10 families x 5 capacities x 8 seeds x 2 float widths = 9600 cases. A program for each shape and width
# takes seconds to compile: float32 rejects what is wrong with a shape (of the search at every third), and float64 at
# every other shape what is wrong with a width.
@pytest.mark.parametrize(
    ("solver", "shape", "x64", "tolerance"),
    [
        pytest.param(
            solver,
            shape,
            *WIDTHS[width],
            id=f"{solver}-{width}-{shape}",
            marks=pytest.mark.slow
            if (number % 3 if solver == "search" else width == "float64" and number % 2 == 0)
            else (),
        )
        for solver in ["compiled", "search"]
        for (number, shape), width in itertools.product(enumerate(problems.SHAPES), WIDTHS)
    ],
    indirect=["solver"],
)
def test_equals_scipy_on_expanded_columns(solver, shape, x64, tolerance):
    n, k = shape
    every = np.stack([problems.scores(family, n, k, seed) for family, _, seed in GRID])
    places = np.stack([problems.capacities(kind, n, k, seed) for _, kind, seed in GRID])
    with jax.enable_x64(x64):
        every = jnp.asarray(every, float)
        # Under jit there is no eager check of the values: infeasible problems give their documented mark.
        solve = jax.jit(lambda batch: jax.lax.map(lambda problem: solve_matching(*problem), batch))
        matches = solve((every, jnp.asarray(places)))
        assert matches.value.dtype == every.dtype
        fields = [np.asarray(field) for field in matches]
        for s, capacity, *match in zip(np.asarray(every, np.float64), places, *fields, strict=True):
            check(s, capacity, Matching(*match), tolerance)


@pytest.mark.parametrize("family", ["normal", "ties", "skewed", "clustered", "spread_1e4"])
def test_equals_scipy_at_larger_sizes(family):
    for (n, k), seed in itertools.product([(600, 12), (601, 12)], [0, 1]):
        capacity = problems.capacities("balanced", n, k, seed)
        s = jnp.asarray(problems.scores(family, n, k, seed), jnp.float32)
        check(np.asarray(s, np.float64), capacity, jax.tree.map(np.asarray, solve_matching(s, capacity)), 1e-5)


def test_equals_brute_force():
    rng = np.random.default_rng(0)
    n, k, capacity = 5, 3, (2, 1, 3)
    outcomes = np.array(list(itertools.product(range(k), repeat=n)))
    feasible = np.stack([(outcomes == j).sum(axis=1) <= capacity[j] for j in range(k)]).all(axis=0)
    outcomes = outcomes[feasible]
    for _ in range(50):
        s = rng.normal(size=(n, k)).astype(np.float32)
        values = s[np.arange(n), outcomes].sum(axis=1)
        np.testing.assert_array_equal(solve_matching(s, capacity).assignment, outcomes[values.argmax()])


@pytest.mark.parametrize(("n", "k"), [(64, 8), (600, 12)])  # programs that other tests here use as well
@pytest.mark.parametrize("family", ["constant", "ties"])
def test_ties_take_few_steps(n, k, family):
    """Exactly tied datapoints move together: the steps do not grow with their number."""
    s = problems.scores(family, n, k, 0)
    assert int(solve_matching(s, n // k).steps) < 32 + 3 * k


def test_gap_exposes_a_wrong_answer():
    """The certificate must be able to fail: at the prices of another problem it is large."""
    s = problems.scores("normal", 64, 8, 0)
    match = solve_matching(s, 8)
    swapped = np.asarray(match.prices)[::-1]
    regret = (s - swapped).max(axis=1) - (s[np.arange(64), match.assignment] - swapped[match.assignment])
    assert regret.sum() > 0.1
    assert match.gap < 1e-5


def test_no_datapoints():
    match = solve_matching(jnp.zeros((0, 3)), 1)
    assert match.assignment.shape == (0,)
    assert match.value == match.gap == 0
