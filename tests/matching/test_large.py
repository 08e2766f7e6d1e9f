"""Problems with a core against POT's network simplex."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching
from tests.matching import large_problems
from tests.matching.large_problems import FAMILIES, KINDS, check

pytestmark = pytest.mark.usefixtures("solver")

SOLVE = jax.jit(solve_matching)
RELATIVE = {False: 1e-6, True: 1e-12}


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(1024, 8), (2048, 5)])
def test_full_capacities(n, k, x64):
    for family, kind, seed in itertools.product(FAMILIES, ["even", "uneven"], [0, 1]):
        s = large_problems.scores(family, n, k, seed)
        capacity = large_problems.capacities(kind, n, k)
        check(s, capacity, solve_matching(s, capacity), RELATIVE[x64])


# Traced capacities take every problem, full or not, along the path for free places.
def test_any_capacities(x64):
    n, k = 1024, 16
    for family, kind, seed in itertools.product([*FAMILIES, "mixed"], KINDS, [0, 1]):
        s = large_problems.scores(family, n, k, seed)
        capacity = large_problems.capacities(kind, n, k)
        check(s, capacity, SOLVE(s, capacity), RELATIVE[x64])


def test_forbidden_pairs_are_not_used(x64):
    n, k = 1024, 8
    for family, seed in itertools.product(FAMILIES, [0, 1]):
        s = large_problems.barred(large_problems.scores(family, n, k, seed), seed)
        capacity = large_problems.capacities("even", n, k)
        match = solve_matching(s, capacity)
        assert np.isfinite(np.asarray(s)[np.arange(n), match.assignment]).all()
        check(s, capacity, match, RELATIVE[x64])


def test_nan_and_inf_are_noticed_under_jit():
    """Small problems do not show it: XLA's maximum over a large array on a CPU may pass over NaN."""
    s = large_problems.scores("random", 1024, 16, 0)
    for flaw, places in itertools.product([np.nan, np.inf], [64, 1024]):
        match = SOLVE(s.at[512, 4].set(flaw), np.full(16, places))
        assert jnp.isnan(match.value)
        assert jnp.isnan(match.prices).all()
        assert (match.assignment == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_experts(kind, x64):
    n, k = 4096, 64
    capacity = large_problems.capacities(kind, n, k)
    for family, seed in itertools.product([*FAMILIES, "mixed"], [0, 1]):
        s = large_problems.scores(family, n, k, seed)
        check(s, capacity, solve_matching(s, capacity), RELATIVE[x64])
        s = large_problems.barred(s, seed)
        if kind == "even":
            check(s, capacity, solve_matching(s, capacity), RELATIVE[x64])


def test_a_slightly_worse_assignment_is_caught():
    s = large_problems.scores("random", 1024, 8, 0)
    capacity = large_problems.capacities("even", 1024, 8)
    match = solve_matching(s, capacity)
    z = np.array(match.assignment)
    i, j = np.argmax(z == 0), np.argmax(z == 1)
    z[[i, j]] = z[[j, i]]
    with pytest.raises(AssertionError):
        check(s, capacity, match._replace(assignment=z), 1e-6)
