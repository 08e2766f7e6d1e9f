"""Small problems of any kind, with many ties: the optimum and its proof, or no matching, as SciPy says."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gumbel_moe.matching import solve_matching
from tests.matching import problems

pytestmark = pytest.mark.usefixtures("solver")

SHAPES = [(8, 4), (6, 2)]  # few, as each is compiled anew


@st.composite
def cases(draw):
    n, k = draw(st.sampled_from(SHAPES))
    entry = st.integers(-3, 3) if draw(st.booleans()) else st.sampled_from([-3.0, 0.0, 1.0, 2.0, -np.inf])
    s = draw(st.lists(st.lists(entry, min_size=k, max_size=k), min_size=n, max_size=n))
    capacity = draw(st.lists(st.integers(1, 5), min_size=k, max_size=k))
    price = st.one_of(st.integers(-5, 5).map(float), st.floats(-10, 10, width=32), st.just(np.nan))
    prices = draw(st.none() | st.lists(price, min_size=k, max_size=k))
    return np.array(s, np.float32), np.array(capacity), prices


@settings(max_examples=120, deadline=None, derandomize=True)
@given(cases())
def test_equals_scipy(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, derandomize=True)
@given(cases())
def test_many_equal_scipy(case):
    check(case)


def check(case):
    s, capacity, prices = case
    n, k = s.shape
    best = problems.best_value(s, capacity) if capacity.sum() >= n else None
    start = None if prices is None else jnp.asarray(prices, jnp.float32)
    if best is None:
        with pytest.raises(ValueError, match=r"room for|forbid"):
            solve_matching(s, capacity, prices=start)
        return
    match = solve_matching(s, capacity, prices=start)
    z, dual_prices = np.asarray(match.assignment), np.asarray(match.prices, np.float64)
    load = np.bincount(z, minlength=k)
    assert (load <= capacity).all()
    assert s[np.arange(n), z].sum() == best
    assert match.value == best
    assert (dual_prices >= 0).all()
    assert (dual_prices[load < capacity] == 0).all()
    assert 0 <= match.gap <= 1e-5
    assert (s - dual_prices).max(axis=1).sum() + (capacity * dual_prices).sum() == pytest.approx(best, abs=1e-5)
