"""Exchange distances with several experts for a datapoint, against re-solving without one of its experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import _residual, exchange_distances, solve_matching
from tests.matching import several_problems

N, K, EACH = 7, 5, 2
WIDTHS = [pytest.param(False, 1e-4, id="float32"), pytest.param(True, 1e-10, id="float64")]


def problem(number, x64):
    """Scores in the width that is in force, as float64; capacities; and a pair that no other matching may need."""
    rng = np.random.default_rng(number)
    s = rng.normal(size=(N, K)) + rng.gumbel(size=(N, K))
    if number % 3 == 0:
        barred = rng.uniform(size=s.shape) < 0.2
        barred[np.arange(N), rng.integers(0, K, N)] = False
        s = np.where(barred, -np.inf, s)
    s = s.astype(np.float64 if x64 else np.float32).astype(np.float64)
    capacity = several_problems.capacities(several_problems.KINDS[number % 4], N, K, EACH, number)
    return s, capacity, rng.integers(0, N), rng.integers(0, EACH)


def thresholds(s, assignment, distances):
    """`(n, m)`: the score at which each of a datapoint's experts leaves the set."""
    held = (np.arange(K) == assignment[..., None]).any(axis=1)
    others = np.where(held, -np.inf, s)
    with np.errstate(invalid="ignore"):
        reached = others[:, :, None] - distances  # (n, k, k)
    reached = np.where(np.isnan(reached), -np.inf, reached).max(axis=1)
    return np.take_along_axis(reached, assignment, axis=1)


def resolved(s, capacity, i, j, best):
    """The same by solving without the pair: it is worth as much as the rest of the best one plus the threshold."""
    without = several_problems.best_value(s, capacity, EACH, barred=[(i, j)])
    return -np.inf if without is None else without - (best - s[i, j])


def errors(numbers, x64, tolerance):
    """How far each problem's threshold is from re-solving."""
    drawn = [problem(number, x64) for number in numbers]
    drawn = [one for one in drawn if several_problems.best_value(*one[:2], EACH) is not None]
    with jax.enable_x64(x64):
        scores = jnp.asarray(np.stack([one[0] for one in drawn]), float)
        capacity = jnp.asarray(np.stack([one[1] for one in drawn]), jnp.int32)

        @jax.jit
        def solve(s, c):
            match = solve_matching(s, c, experts_per_datapoint=EACH)
            return match.assignment, exchange_distances(s, match.assignment, c)

        assignment, distances = (np.asarray(x) for x in jax.lax.map(lambda one: solve(*one), (scores, capacity)))
    found = []
    for (s, c, i, slot), z, d in zip(drawn, assignment, distances.astype(np.float64), strict=True):
        best = np.take_along_axis(s, z, axis=1).sum()
        want, got = resolved(s, c, i, z[i, slot], best), thresholds(s, z, d)[i, slot]
        found.append(0.0 if want == got else abs(want - got))
    return np.array(found)


@pytest.mark.parametrize(("x64", "tolerance"), WIDTHS)
def test_thresholds_equal_resolving(x64, tolerance):
    assert errors(range(60), x64, tolerance).max() < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("x64", "tolerance"), WIDTHS)
def test_thresholds_equal_resolving_for_many(x64, tolerance):
    found = errors(range(1100), x64, tolerance)
    assert len(found) >= 1000
    assert found.max() < tolerance


def test_moving_to_an_own_expert_is_caught(monkeypatch):
    """The oracle tells edges gone by datapoints that are at both of their ends apart."""
    monkeypatch.setattr(_residual, "held", lambda assignment, k: jnp.zeros((len(assignment), k), bool))
    jax.clear_caches()
    wrong = errors(range(60), False, 1e-4)
    jax.clear_caches()
    assert (wrong > 0.05).sum() > 5


def test_one_of_several_equals_one():
    rng = np.random.default_rng(0)
    s = jnp.asarray(rng.normal(size=(3, N, K)), jnp.float32)
    z = solve_matching(s, 2).assignment
    np.testing.assert_array_equal(exchange_distances(s, z[..., None], 2), exchange_distances(s, z, 2))


def test_bad_arguments():
    s = jnp.zeros((4, 3))
    for bad in (jnp.zeros((4, 2)), jnp.zeros((4, 0), int), jnp.zeros((4, 4), int), jnp.zeros((3, 2), int)):
        with pytest.raises(ValueError, match="assignment must be integers of shape"):
            exchange_distances(s, bad, 2)
    with pytest.raises(ValueError, match="or with up to 3 experts in an axis more"):
        exchange_distances(s, jnp.zeros((1, 4, 2), int), 2)
    assert jnp.isnan(exchange_distances(s, jnp.full((4, 2), -1), 3)).all()
