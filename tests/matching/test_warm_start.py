"""Prices to start from change the time, never the optimum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching
from tests.matching import large_problems, problems

pytestmark = pytest.mark.usefixtures("solver")

FAMILIES = ["random", "skewed", "ties", "clustered", "mixed"]
STARTS = [
    "own",
    "zero",
    "wild",
    "one_nan",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ["near", "nan", "inf"]),
]


def start(kind, own):
    rng = np.random.default_rng(0)
    match kind:
        case "own":
            return own
        case "zero":
            return jnp.zeros_like(own)
        case "near":
            return own + jnp.asarray(0.1 * rng.normal(size=own.shape), own.dtype)
        case "wild":
            return jnp.asarray(1e3 * rng.normal(size=own.shape), own.dtype)
        case "nan" | "inf":
            return jnp.full_like(own, float(kind))
        case "one_nan":
            return own.at[0].set(jnp.nan)
    raise ValueError(kind)


@pytest.fixture(scope="module")
def solve():
    return jax.jit(lambda s, capacity, prices: solve_matching(s, capacity, prices=prices))


# A core for the first shape, none for the second.
@pytest.mark.each_choice
@pytest.mark.parametrize(("n", "k"), [(512, 5), (64, 6)])
@pytest.mark.parametrize("kind", STARTS)
def test_same_optimum(n, k, kind, solve):
    for family, room, seed in itertools.product(FAMILIES, large_problems.KINDS, range(3)):
        s = large_problems.scores(family, n, k, seed)
        capacity = large_problems.capacities(room, n, k)
        own = solve(s, capacity, jnp.full(k, jnp.nan, s.dtype)).prices
        large_problems.check(s, capacity, solve(s, capacity, start(kind, own)), 1e-6)


@pytest.mark.parametrize("kind", STARTS)
def test_same_optimum_for_two_experts(kind):
    s = jnp.asarray(problems.scores("normal", 40, 2, 0), float)
    cold = solve_matching(s, (25, 15))
    warm = solve_matching(s, (25, 15), prices=start(kind, cold.prices))
    np.testing.assert_array_equal(warm.assignment, cold.assignment)
    np.testing.assert_array_equal(warm.value, cold.value)
    assert warm.gap < 1e-5


@pytest.fixture(scope="module")
def batch():
    return jnp.stack([large_problems.scores(family, 64, 6, 0) for family in [*FAMILIES, "random3"]]).reshape(
        2, 3, 64, 6
    )


def test_batched_and_shared_prices(batch):
    cold = solve_matching(batch, 11)
    shared = cold.prices[0, 1]
    for prices in [cold.prices, shared, np.asarray(cold.prices), [0] * 6, jnp.zeros((2, 3, 6), jnp.bfloat16)]:
        np.testing.assert_allclose(solve_matching(batch, 11, prices=prices).value, cold.value, rtol=1e-6)
    spoilt = cold.prices.at[1, 2].set(jnp.nan)
    expected = solve_matching(batch, 11, prices=cold.prices)
    warm = solve_matching(batch, 11, prices=spoilt)
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-6)
    np.testing.assert_array_equal(warm.steps.ravel()[:-1], expected.steps.ravel()[:-1])


@pytest.mark.slow
def test_vmap_over_scores_or_prices(batch):
    flat = batch.reshape(6, 64, 6)
    cold = solve_matching(batch, 11)
    prices = cold.prices.reshape(6, 6)

    def value(s, prices):
        return solve_matching(s, 11, prices=prices).value

    shared = jax.vmap(value, (0, None))(flat, prices[1])
    np.testing.assert_allclose(shared, cold.value.ravel(), rtol=1e-6)
    every_start = jax.jit(jax.vmap(value, (None, 0)))(flat[0], prices)
    np.testing.assert_allclose(every_start, jnp.full(6, cold.value[0, 0]), rtol=1e-6)


@pytest.mark.slow
def test_own_prices_save_steps():
    def steps(family):
        cold_steps, warm_steps = 0, 0
        for seed in range(10):
            s = large_problems.scores(family, 1024, 8, seed)
            cold = solve_matching(s, 128)
            cold_steps += int(cold.steps)
            warm_steps += int(solve_matching(s, 128, prices=cold.prices).steps)
        return warm_steps, cold_steps

    for family in ["random", "random3", "skewed"]:  # there is not much to save: 6 or 7 steps are enough
        warm, cold = steps(family)
        assert warm <= cold
    warm, cold = steps("clustered")
    assert warm <= 0.7 * cold


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 6), (2, 6), (1, 1, 6), (2, 3, 1), (2, 3, 64, 6)])
def test_wrong_shapes(batch, shape):
    with pytest.raises(ValueError, match=r"prices must have shape \(2, 3, 6\) or \(6,\)"):
        solve_matching(batch, 11, prices=jnp.zeros(shape))
    with pytest.raises(ValueError, match="prices must have shape"):
        jax.jit(lambda u: solve_matching(batch, 11, prices=u))(jnp.zeros(shape))


@pytest.mark.parametrize("dtype", [bool, complex])
def test_wrong_dtypes(batch, dtype):
    with pytest.raises(TypeError, match="prices must be real numbers"):
        solve_matching(batch, 11, prices=np.zeros(6, dtype))


def test_no_gradient_flows_to_the_prices(batch):
    def total(prices):
        match = solve_matching(batch[0, 0], 11, prices=prices)
        return match.value + match.gap + jnp.sum(match.prices)

    np.testing.assert_array_equal(jax.grad(total)(jnp.full(6, 0.3)), jnp.zeros(6))
