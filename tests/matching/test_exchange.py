"""Exchange distances against re-solving with one place more and one place less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import exchange_distances, solve_matching
from tests.matching import problems


def conditionals_by_brute_force(logits, s, capacity):
    """`q[i, j]` by solving for all the others with one place taken from expert `j`, in float64."""
    n, k = s.shape
    value = np.full((n, k), -np.inf)
    for i in range(n):
        others = np.delete(s, i, axis=0)
        for j in range(k):
            best = problems.best_value(others, capacity - (np.arange(k) == j))
            value[i, j] = -np.inf if best is None else best
    unnormalised = logits + value
    weight = np.exp(unnormalised - unnormalised.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.each_choice
@pytest.mark.parametrize("shape", [(1, 3), (3, 5), (6, 2), (9, 3), (12, 4)], ids=str)
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-4), (True, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", problems.CAPACITIES)
def test_conditionals_equal_brute_force(shape, kind, x64, tolerance):
    n, k = shape
    with jax.enable_x64(x64):
        for family in ["normal", "skewed", "forbidden"]:
            for seed in [0, 1]:
                rng = np.random.default_rng(seed)
                capacity = problems.capacities(kind, n, k, seed)
                logits = np.asarray(jnp.asarray(problems.scores(family, n, k, seed), float), np.float64)
                s = np.asarray(jnp.asarray(logits + rng.gumbel(size=(n, k)), float), np.float64)
                if problems.best_value(s, capacity) is None:
                    continue
                z = solve_matching(s.astype(jnp.result_type(float)), capacity).assignment
                distances = exchange_distances(s.astype(jnp.result_type(float)), z, capacity)
                q = jax.nn.softmax(jnp.asarray(logits, float) - distances.T[z], axis=1)
                np.testing.assert_allclose(q, conditionals_by_brute_force(logits, s, capacity), atol=tolerance)


def test_ignoring_free_places_is_caught():
    """The oracle tells distances with and without the free places apart."""
    s = problems.scores("normal", 9, 3, 0)
    capacity = np.array([4, 4, 4])
    z = np.asarray(solve_matching(s, capacity).assignment)
    full = np.bincount(z, minlength=3)
    wrong = jax.nn.softmax(jnp.asarray(s) - exchange_distances(s, z, full).T[z], axis=1)
    assert np.abs(wrong - conditionals_by_brute_force(s, s, capacity)).max() > 0.05


def test_distances_are_shortest_paths():
    s = problems.scores("normal", 24, 6, 0).astype(np.float32)
    d = np.asarray(exchange_distances(s, solve_matching(s, 4).assignment, 4))
    assert (np.diag(d) == 0).all()
    assert (d[:, None, :] <= d[:, :, None] + d[None] + 1e-5).all()  # triangle inequality
    assert (d + d.T >= -1e-5).all()  # no negative cycle: the assignment is optimal


def test_expert_without_datapoints_is_reached_but_passes_on_only_its_free_place():
    s = jnp.array([[5.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    d = exchange_distances(s, jnp.array([0, 0]), (2, 1, 1))
    np.testing.assert_array_equal(d, [[0, 5, 5], [0, 0, 0], [0, 0, 0]])


def test_bad_arguments():
    s = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="assignment must be integers of shape"):
        exchange_distances(s, jnp.zeros(4), 2)
    with pytest.raises(ValueError, match="assignment must be integers of shape"):
        exchange_distances(s, jnp.zeros(3, int), 2)
    assert jnp.isnan(exchange_distances(s, -jnp.ones(4, int), 2)).all()
