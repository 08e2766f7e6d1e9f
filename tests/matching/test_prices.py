"""An expert with a free place has the price 0, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching

pytestmark = pytest.mark.usefixtures("solver")


def test_equal_datapoints(x64):
    """Rounding leaves cycles of tied datapoints a hair below 0, so that no prices satisfy all of them exactly."""
    n, k, places = 40, 5, 12
    solve = jax.jit(lambda s: solve_matching(s, places))
    for seed in range(300):
        rng = np.random.default_rng(seed)
        s = jnp.asarray(rng.normal(size=(3, k))[rng.integers(0, 3, size=n)], float)
        match = solve(s)
        free = np.bincount(match.assignment, minlength=k) < places
        np.testing.assert_array_equal(match.prices[free], 0, err_msg=f"seed {seed}")
