"""Clear errors outside `jit`; documented marks, and no hang, inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching

pytestmark = pytest.mark.usefixtures("solver")

SCORES = jnp.arange(12.0).reshape(6, 2)


@pytest.mark.parametrize(
    ("capacity", "message"),
    [
        (0, "capacity must be at least 1"),
        (-3, "capacity must be at least 1"),
        ((3, 0), "capacity must be at least 1"),
        (2.5, "capacity must be an int"),
        (3.0, "capacity must be an int"),
        (True, "capacity must be an int"),
        ((3, 3, 3), r"capacity must be an int or \(2,\) ints"),
        (((3, 3),), r"capacity must be an int or \(2,\) ints"),
        (2, "capacity has room for 4 datapoints"),
        ((1, 4), "capacity has room for 5 datapoints"),
    ],
)
def test_capacity(capacity, message):
    with pytest.raises(ValueError, match=message):
        solve_matching(SCORES, capacity)
    with pytest.raises(ValueError, match=message):  # a constant capacity is checked under jit as well
        jax.jit(lambda s: solve_matching(s, capacity))(SCORES)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (jnp.zeros(3), ValueError, "scores must have shape"),
        (jnp.zeros((3, 0)), ValueError, "at least one expert"),
        (jnp.zeros((2, 2), bool), TypeError, "scores must be floating point"),
        (jnp.zeros((2, 2), complex), TypeError, "scores must be floating point"),
        (SCORES.at[1, 1].set(jnp.nan), ValueError, "scores must not contain NaN"),
        (SCORES.at[1, 1].set(jnp.inf), ValueError, r"scores must not contain \+inf"),
        (SCORES.at[4].set(-jnp.inf), ValueError, r"forbids every expert \(-inf\) for datapoint \(4,\)"),
        (SCORES.at[:4, 0].set(-jnp.inf), ValueError, "no feasible matching"),
    ],
)
def test_scores(scores, error, message):
    with pytest.raises(error, match=message):
        solve_matching(scores, 3)


def test_constant_scores_under_jit_are_checked():
    assert jax.jit(lambda x: solve_matching(SCORES, 3).value + x)(1.0) == solve_matching(SCORES, 3).value + 1
    bad = SCORES.at[0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match="must not contain NaN"):
        jax.jit(lambda x: solve_matching(bad, 3).value + x)(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_under_jit(bad):
    match = jax.jit(lambda s: solve_matching(s, 3))(SCORES.at[2, 0].set(bad))
    assert (match.assignment == -1).all()
    assert jnp.isnan(match.value)
    assert jnp.isnan(match.gap)
    assert jnp.isnan(match.prices).all()


@pytest.mark.parametrize("capacity", [[1, 1], [3, 2], [0, 0], [-5, 3]])
def test_too_small_traced_capacity(capacity):
    match = jax.jit(solve_matching)(SCORES, jnp.array(capacity))
    assert (match.assignment == -1).all()
    assert jnp.isneginf(match.value)


def test_one_bad_problem_in_a_batch_leaves_the_others_alone():
    batch = jnp.stack([SCORES, SCORES.at[0, 0].set(jnp.nan), SCORES.at[:4, 0].set(-jnp.inf)])
    match = jax.jit(lambda s: solve_matching(s, 3))(batch)
    assert match.value[0] == solve_matching(SCORES, 3).value
    assert jnp.isnan(match.value[1])
    assert jnp.isneginf(match.value[2])


def test_forbidden_experts_are_not_used_while_a_matching_is_feasible():
    barred = jnp.where(jnp.array([[True, False]] * 3 + [[False, True]] * 3), -jnp.inf, SCORES)
    np.testing.assert_array_equal(solve_matching(barred, 3).assignment, [1, 1, 1, 0, 0, 0])
