"""GumbelMatching: draws, conditionals, support."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.distributions._gumbel_noise import gumbel_noise
from gumbel_moe.matching import solve_matching
from tests.matching.test_exchange import conditionals_by_brute_force
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value, largest_z

TABLES = json.loads(Path(__file__).parents[1].joinpath("data", "gumbel_matching_tables.json").read_text())["tables"]


def test_draws_are_matchings_of_perturbed_logits():
    logits = jax.random.normal(jax.random.key(0), (9, 3))
    d = GumbelMatching(logits, 3)
    noise = gumbel_noise(jax.random.key(1), (4, 9, 3), logits.dtype)
    np.testing.assert_array_equal(d.sample(jax.random.key(1), (4,)), solve_matching(logits + noise, 3).assignment)


@pytest.mark.parametrize("table", TABLES, ids=lambda t: f"c={t['capacity']}")
def test_frequencies_match_exact_tables(table):
    """Chi-square against the exact outcome probabilities; the Gibbs form, a wrong variant, must be rejected."""
    logits, outcomes, probs = (np.asarray(table[name]) for name in ("logits", "assignments", "probs"))
    d = GumbelMatching(jnp.asarray(logits, jnp.float32), jnp.asarray(table["capacity"]))
    draws = np.asarray(jax.jit(d.sample, static_argnums=1)(jax.random.key(0), (40_000,)))
    gibbs = np.exp(logits[np.arange(len(logits)), outcomes].sum(axis=1))
    for expected, passes in [(probs, True), (gibbs / gibbs.sum(), len(logits) == 1)]:
        assert (chisquare_p_value(draws, outcomes, expected) > FALSE_FAIL_RATE) == passes


@pytest.mark.each_choice
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-4), (True, 1e-10)], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "capacity", [(2, 3, 3), *(pytest.param(c, marks=pytest.mark.slow) for c in ((3, 3, 3), (8, 2, 1)))]
)
def test_conditionals_equal_brute_force(capacity, x64, tolerance):
    with jax.enable_x64(x64):
        logits = 2 * jax.random.normal(jax.random.key(0), (8, 3), float)
        d = GumbelMatching(logits, capacity)
        value, log_q = d.sample_with_conditionals(jax.random.key(1), (3,))
        noise = gumbel_noise(jax.random.key(1), (3, 8, 3), logits.dtype)
        np.testing.assert_array_equal(value, d.sample(jax.random.key(1), (3,)))
        for scores, q in zip(np.asarray(logits + noise, np.float64), np.exp(log_q), strict=True):
            expected = conditionals_by_brute_force(np.asarray(logits, np.float64), scores, np.asarray(capacity))
            np.testing.assert_allclose(q, expected, atol=tolerance)


@pytest.mark.slow
def test_conditionals_average_to_the_marginals():
    """`E[q_ij] = P(z_i = j)`: bounded terms, so the normal approximation holds. 24 z-scores, two-sided, Bonferroni."""
    logits = jax.random.normal(jax.random.key(0), (8, 3))
    draws = 20_000
    d = GumbelMatching(logits, (3, 2, 4))
    value, log_q = jax.jit(d.sample_with_conditionals, static_argnums=1)(jax.random.key(1), (draws,))
    hit = jax.nn.one_hot(value, 3)
    z, limit = largest_z(hit - jnp.exp(log_q), 0)
    assert z < limit
    z, limit = largest_z(hit - jax.nn.softmax(logits), 0)
    assert z > limit  # the unconditional p is not the marginal


@pytest.mark.slow
def test_gradient_of_conditionals_is_at_fixed_distances():
    logits = jax.random.normal(jax.random.key(0), (6, 2))

    def log_q(a):
        return GumbelMatching(a, 3).sample_with_conditionals(jax.random.key(1))[1]

    jacobian = jax.jacobian(log_q)(logits)
    q = jnp.exp(log_q(logits))
    for i in range(6):
        np.testing.assert_allclose(jacobian[i, :, i, :], jnp.eye(2) - q[i], atol=1e-6)
        assert (jnp.delete(jacobian[i], i, axis=1) == 0).all()


def test_forbidden_experts():
    logits = jnp.zeros((4, 2)).at[:2, 0].set(-jnp.inf)
    d = GumbelMatching(logits, 2)
    value, log_q = d.sample_with_conditionals(jax.random.key(0), (50,))
    np.testing.assert_array_equal(value, jnp.broadcast_to(jnp.array([1, 1, 0, 0]), (50, 4)))
    assert (log_q[:, jnp.arange(4), jnp.array([1, 1, 0, 0])] == 0).all()
    assert not jnp.isnan(log_q).any()


def test_no_feasible_matching():
    logits = jnp.zeros((4, 2)).at[:3, 0].set(-jnp.inf)
    d = GumbelMatching(logits, 2)
    with pytest.raises(ValueError, match="no feasible matching"):
        d.sample(jax.random.key(0))
    value, log_q = jax.jit(d.sample_with_conditionals)(jax.random.key(0))
    assert (value == -1).all()
    assert jnp.isnan(log_q).all()
    assert not d.support(value)
