"""All problems of a batch at once, as an accelerator runs them, against one after the other, as a CPU does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import exchange_distances, solve_matching
from gumbel_moe.matching._exchange import _distances
from gumbel_moe.matching._solve import solve_one
from tests.matching import large_problems, problems

N, K = 320, 5  # with a core
FAMILIES = [*large_problems.FAMILIES, "mixed"]


@pytest.fixture(scope="module")
def batch():
    return jnp.stack([large_problems.scores(family, N, K, seed) for family in FAMILIES for seed in range(2)])


@pytest.fixture(scope="module")
def at_once():
    """Scores and capacities, both with a leading axis."""
    return jax.jit(jax.vmap(solve_one))


@pytest.fixture(scope="module")
def looped():
    return jax.jit(jax.vmap(solve_matching))


def rows(*kinds):
    return jnp.asarray(np.stack([large_problems.capacities(kind, N, K) for kind in kinds]), jnp.int32)


def check_all(batch, capacity, match):
    for s, c, *fields in zip(batch, np.asarray(capacity), *match, strict=True):
        large_problems.check(s, c, type(match)(*fields), 1e-6)


@pytest.mark.parametrize("kind", large_problems.KINDS)
def test_at_once(batch, at_once, looped, kind):
    capacity = jnp.tile(rows(kind), (len(batch), 1))
    match = at_once(batch, capacity)
    check_all(batch, capacity, match)
    one_by_one = looped(batch, capacity)
    np.testing.assert_allclose(match.value, one_by_one.value, rtol=1e-6)
    np.testing.assert_allclose(match.gap, one_by_one.gap, atol=1e-4)


def test_capacities_of_their_own(batch, at_once):
    kinds = (large_problems.KINDS * len(batch))[: len(batch)]
    check_all(batch, rows(*kinds), at_once(batch, rows(*kinds)))


@pytest.mark.slow
def test_full_at_once(batch):
    match = jax.jit(jax.vmap(partial(solve_one, full=True), (0, None)))(batch, rows("even")[0])
    check_all(batch, jnp.tile(rows("even"), (len(batch), 1)), match)


@pytest.mark.slow
def test_unsound_problems_leave_the_others_alone(batch, at_once):
    capacity = jnp.tile(rows("even"), (len(batch), 1)).at[5].set(1)
    bad = batch.at[1, 7, 2].set(jnp.nan).at[3, 0].set(-jnp.inf).at[8, :, 1:].set(-jnp.inf)
    match = at_once(bad, capacity)
    assert jnp.isnan(match.value[1])
    assert jnp.isneginf(match.value[jnp.array([3, 5, 8])]).all()
    spoilt = np.isin(np.arange(len(batch)), [1, 3, 5, 8])
    assert (match.assignment[spoilt] == -1).all()
    assert jnp.isnan(match.prices[spoilt]).all()
    expected = at_once(batch, jnp.tile(rows("even"), (len(batch), 1)))
    for got, alone in zip(match, expected, strict=True):
        np.testing.assert_array_equal(got[~spoilt], alone[~spoilt])


@pytest.mark.parametrize(("n", "k"), [(18, 2), pytest.param(18, 4, marks=pytest.mark.slow)])
def test_nested(n, k):
    """Two axes of scores and one of capacities, all through `vmap`."""
    s = np.stack([problems.scores(f, n, k, 0) for f in ["normal", "ties", "constant", "heavy"]])
    s = jnp.asarray(s.reshape(2, 2, n, k), float)
    capacity = np.stack([problems.capacities(kind, n, k, 0) for kind in ["balanced", "unequal", "loose"]])
    over_capacity = jax.vmap(solve_matching, (None, 0))
    values = jax.jit(jax.vmap(jax.vmap(over_capacity, (0, None)), (0, None)))(s, capacity).value
    assert values.shape == (2, 2, 3)
    for a, b, c in np.ndindex(2, 2, 3):
        np.testing.assert_allclose(values[a, b, c], problems.best_value(s[a, b], capacity[c]), rtol=1e-5)


@pytest.mark.slow
def test_no_gradient_flows_through_vmap(batch):
    def total(s):
        match = jax.vmap(lambda s: solve_matching(s, N // K))(s)
        return jnp.sum(match.value + match.gap) + jnp.sum(match.prices)

    np.testing.assert_array_equal(jax.grad(total)(batch), jnp.zeros_like(batch))


@pytest.mark.slow
def test_exchange_distances_at_once(batch, looped):
    capacity = jnp.tile(rows("loose"), (len(batch), 1)).at[::2].set(rows("even")[0])
    assignment = looped(batch, capacity).assignment.at[3, 0].set(-1)
    expected = jax.vmap(exchange_distances)(batch, assignment, capacity)
    np.testing.assert_array_equal(jax.vmap(_distances)(batch, assignment, capacity), expected)
    assert jnp.isnan(expected[3]).all()
    assert not jnp.isnan(expected[np.arange(len(batch)) != 3]).any()
    nested = jax.jit(jax.vmap(jax.vmap(exchange_distances, (None, None, 0)), (0, 0, None)))
    distances = nested(batch[:2], assignment[:2], capacity[:2])
    np.testing.assert_array_equal(distances[[0, 1], [0, 1]], expected[:2])
    assert not jnp.array_equal(distances[0, 0], distances[0, 1])
