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
    every = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        every.append(rng.normal(size=(3, k))[rng.integers(0, 3, size=n)])
    solve = jax.jit(lambda batch: jax.lax.map(lambda s: solve_matching(s, places), batch))
    matches = solve(jnp.asarray(np.stack(every), float))
    for seed, (assignment, prices) in enumerate(zip(matches.assignment, np.asarray(matches.prices), strict=True)):
        free = np.bincount(assignment, minlength=k) < places
        np.testing.assert_array_equal(prices[free], 0, err_msg=f"seed {seed}")
