"""SkipAssignment: exact probabilities, sampling, weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import comb

from gumbel_moe.distributions import SkipAssignment
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value

CASES = [((1, 2), 1), ((2, 1), 1), ((3, 2), 1), ((4, 2), (1, 2)), ((3, 3), 2), ((4, 3), (1, 3, 1)), ((4, 2), 9)]


def distribution(shape, capacity, seed=0):
    # Most of the values enumerated below are outside the support: no warning about them.
    return SkipAssignment(jax.random.normal(jax.random.key(seed), shape, float), capacity, validate_args=False)


def all_values(n, k):
    """Every vector of drawn experts, kept or skipped: most of them outside the support."""
    return np.array(list(itertools.product(range(-k, k), repeat=n)), np.int32)


def by_hand(logits, capacity, value):
    """Log-probability of one value, spelled out with Python loops in float64."""
    n, k = logits.shape
    capacity = np.broadcast_to(capacity, k)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expert = np.where(value < 0, -1 - value, value)
    total = 0.0
    for j in range(k):
        drawn, kept = (expert == j).sum(), (value == j).sum()
        if kept != min(drawn, capacity[j]):
            return -np.inf
        total -= np.log(comb(drawn, kept, exact=True))
    return total + np.log(p[np.arange(n), expert]).sum()


@pytest.mark.each_choice
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize(("shape", "capacity"), CASES)
def test_all_outcomes_sum_to_one_and_equal_the_formula(shape, capacity, x64, tolerance):
    with jax.enable_x64(x64):
        d = distribution(shape, capacity)
        values = all_values(*shape)
        log_prob = np.asarray(d.log_prob(values))
        assert log_prob.dtype == d.logits.dtype
        assert np.exp(log_prob).sum() == pytest.approx(1, abs=tolerance)
        np.testing.assert_array_equal(np.isfinite(log_prob), np.asarray(d.support(values)))
        expected = [by_hand(np.asarray(d.logits, np.float64), capacity, value) for value in values]
        np.testing.assert_allclose(log_prob, expected, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(
    ("shape", "capacity"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [((3, 2), 1), ((3, 3), 2)]),
        ((4, 2), (1, 2)),
        ((4, 3), (1, 3, 1)),
    ],
)
def test_frequencies_match_probabilities(shape, capacity):
    d = distribution(shape, capacity)
    values = all_values(*shape)
    probs = np.exp(np.asarray(d.log_prob(values), np.float64))
    samples = np.asarray(d.sample(jax.random.key(1), (200_000,)))
    assert chisquare_p_value(samples, values, probs) > FALSE_FAIL_RATE
    # A sampler that keeps the first datapoints of an expert instead of random ones is a wrong variant: rejected.
    expert = np.asarray(d.expert(samples))
    rank = np.stack([((expert == j).cumsum(axis=1) - 1) for j in range(shape[1])])
    rank = np.take_along_axis(rank, expert[None], axis=0)[0]
    first_kept = np.where(rank < np.broadcast_to(capacity, shape[1])[expert], expert, ~expert).astype(np.int32)
    assert chisquare_p_value(first_kept, values, probs) < FALSE_FAIL_RATE


@pytest.mark.parametrize("capacity", [1, 2, (1, 3, 2), 100])
def test_weights_are_exact_by_enumeration(capacity):
    """`E[w_i 1(z_i = j)] = p_ij` summed over all outcomes, no sampling; without the weights it fails."""
    with jax.enable_x64(True):
        d = distribution((4, 3), capacity)
        values = all_values(4, 3)
        probs = np.exp(d.log_prob(values))
        one_hot = np.asarray(d.expert(values))[..., None] == np.arange(3)
        p = jax.nn.softmax(d.logits)
        weights = np.asarray(d.importance_weights(values))
        np.testing.assert_allclose(np.einsum("v,vi,vij->ij", probs, weights, one_hot), p, atol=1e-12)
        kept = np.asarray(d.kept(values), float)
        error = np.abs(np.einsum("v,vi,vij->ij", probs, kept, one_hot) - p).max()
        assert (error > 0.01) == (capacity != 100)


def test_log_prob_is_accurate_for_large_counts():
    """One expert draws everything: `log binom(2000, 500)`, where float32 log-gammas would lose three digits."""
    n, capacity = 2000, 500
    d = SkipAssignment(jnp.zeros((n, 1)), capacity)
    value = jnp.where(jnp.arange(n) < capacity, 0, ~0)
    exact = -float(np.log(float(comb(n, capacity, exact=True) // 10**300)) + 300 * np.log(10))
    assert d.log_prob(value) == pytest.approx(exact, rel=2e-6)


def test_gradient_of_log_prob_is_that_of_the_categoricals():
    d = distribution((5, 3), 2)
    value = d.sample(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda a: SkipAssignment(a, 2).log_prob(value)))(d.logits)
    one_hot = jax.nn.one_hot(d.expert(value), 3)
    np.testing.assert_allclose(gradient, one_hot - jax.nn.softmax(d.logits), atol=1e-6)


def test_capacity_below_the_number_of_datapoints_skips_the_rest():
    d = SkipAssignment(jnp.zeros((10, 2)), (1, 3))
    value = d.sample(jax.random.key(0), (500,))
    assert ((value[..., None] == jnp.arange(2)).sum(axis=1) <= jnp.array([1, 3])).all()
    assert d.support(value).all()
    assert (d.importance_weights(value) >= d.kept(value)).all()


def test_forbidden_experts():
    logits = jnp.array([[0.0, -jnp.inf], [0.0, 0.0]])
    d = SkipAssignment(logits, 1)
    assert (d.expert(d.sample(jax.random.key(0), (100,)))[:, 0] == 0).all()
    assert jnp.isneginf(d.log_prob(jnp.array([1, 0])))
    np.testing.assert_allclose(d.log_prob(jnp.array([0, 1])), np.log(0.5), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda a: SkipAssignment(a, 1).log_prob(jnp.array([0, 1]))))(logits)
    np.testing.assert_allclose(gradient, [[0, 0], [-0.5, 0.5]], atol=1e-6)
