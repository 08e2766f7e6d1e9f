"""The sequential work is reported, and bounded."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching
from gumbel_moe.matching._prices import _MAX_PASSES
from tests.matching import large_problems, problems

# A first search; its continuation in the core, which may be in vain, and then with everybody before and after the
# attempt at breaking ties; the search with noise of that.
MOST_SEARCHES = 1 + 1 + 2 + 1


@pytest.mark.parametrize(("n", "k"), [pytest.param(96, 4, marks=pytest.mark.slow), (384, 6)])
def test_bound(n, k, solver):
    solve = jax.jit(solve_matching)
    for family, kind, seed in itertools.product(problems.FAMILIES, problems.CAPACITIES, range(3)):
        capacity = np.minimum(problems.capacities(kind, n, k, seed), n + 1)
        match = solve(jnp.asarray(problems.scores(family, n, k, seed), float), capacity)
        assert match.steps.dtype == jnp.int32
        spare = capacity.sum() - n
        if solver == "compiled":
            assert 0 <= match.steps <= n + spare
            continue
        # Scores that are all the same, as those that stand in for an insoluble problem, may need nothing at all.
        trivial = family == "constant" or jnp.isneginf(match.value)
        assert (0 if trivial else 1) <= match.steps <= MOST_SEARCHES * _MAX_PASSES + 2 * (n + spare)


def test_random_problems_take_few_steps(solver):
    n, k = 4096, 16
    for family, seed in itertools.product(["random", "random3", "skewed"], range(6)):
        steps = solve_matching(large_problems.scores(family, n, k, seed), n // k).steps
        assert int(steps) < (30 if solver == "search" else math.sqrt(n * k))


def test_two_experts_take_one(solver):
    steps = solve_matching(jnp.asarray(problems.scores("normal", 50, 2, 0), float), 25).steps
    assert steps == 1 if solver == "search" else steps < 10
