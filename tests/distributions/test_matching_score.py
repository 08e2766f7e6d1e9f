"""The gradient of the log-probability, and what is estimated from draws: entropy, marginals, the score identity."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import (
    GumbelMatching,
    enumerate_assignments,
    matching_log_prob,
    outcome_probabilities,
)
from tests.distributions.price_integral import integral_on_a_grid
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value, largest_z

SLOWLY = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(("n", "capacity"), [(5, (2, 3, 2)), SLOWLY(4, (2, 2))])
def test_gradient_against_finite_differences(n, capacity):
    with jax.enable_x64(True):
        logits = jax.random.normal(jax.random.key(0), (n, len(capacity)))
        value = GumbelMatching(logits, capacity).sample(jax.random.key(1))

        # One program for the gradient and the values, as each takes seconds to compile.
        log_prob = jax.jit(jax.value_and_grad(lambda a: matching_log_prob(a, value, capacity).value))
        gradient = log_prob(logits)[1]
        # Along random directions, in which no wrong entries cancel, and not along every axis: the program runs long.
        for direction in np.random.default_rng(0).normal(size=(3, *logits.shape)):
            step = 1e-4 * direction
            slope = (log_prob(logits + step)[0] - log_prob(logits - step)[0]) / 2e-4
            assert jnp.sum(gradient * direction) == pytest.approx(float(slope), abs=1e-6)


@pytest.mark.slow
def test_gradient_beyond_quadrature_equals_that_of_the_grid():
    """Four experts: self-normalised weights against finite differences of the plain grid."""
    logits = np.random.default_rng(0).normal(size=(4, 4))
    value = np.arange(4)
    gradient = jax.grad(lambda a: matching_log_prob(a, value, 1, num_draws=4096).value)(jnp.asarray(logits))
    for i, j in [(0, 0), (1, 3), (2, 1)]:
        step = np.zeros_like(logits)
        step[i, j] = 1e-3
        up, down = (integral_on_a_grid(logits + sign * step, value, np.ones(4), 16.0, 48) for sign in (1, -1))
        assert gradient[i, j] == pytest.approx((up - down) / 2e-3, abs=0.02)


@pytest.mark.parametrize(("shape", "x64"), [SLOWLY((6, 3), True), ((6, 2), False), SLOWLY((8, 4), False)])
def test_jit_vmap_grad_and_determinism(shape, x64):
    with jax.enable_x64(x64):
        n, k = shape
        logits = jax.random.normal(jax.random.key(0), (3, n, k), float)
        d = GumbelMatching(logits, n // k)
        value = d.sample(jax.random.key(1))
        log_prob, error = d.log_prob_with_error(value)
        assert log_prob.shape == error.shape == (3,)
        assert log_prob.dtype == error.dtype == logits.dtype
        np.testing.assert_array_equal(log_prob, d.log_prob(value))
        one = jax.jit(jax.value_and_grad(lambda a, z: matching_log_prob(a, z, n // k).value))
        mapped, gradients = jax.vmap(one)(logits, value)
        tolerance = 1e-9 if x64 else 1e-4
        np.testing.assert_allclose(mapped, log_prob, rtol=tolerance)
        for i in range(3):
            alone, gradient = one(logits[i], value[i])
            np.testing.assert_allclose(alone, log_prob[i], rtol=tolerance)
            np.testing.assert_allclose(gradient, gradients[i], atol=10 * tolerance)


@pytest.mark.slow
def test_more_assignments_than_are_computed_at_a_time():
    logits = jax.random.normal(jax.random.key(0), (4, 2))
    many = GumbelMatching(logits, 2).sample(jax.random.key(2), (100,))
    few = matching_log_prob(logits, many[:3], 2).value
    np.testing.assert_allclose(matching_log_prob(logits, many, 2).value[:3], few, rtol=1e-5)


def test_vmap_over_capacity():
    logits = jax.random.normal(jax.random.key(0), (4, 2))
    value = jnp.array([0, 1, 1, 0])
    capacities = jnp.array([[2, 2], [2, 4], [4, 4]])
    mapped = jax.vmap(lambda c: matching_log_prob(logits, value, c).value)(capacities)
    for capacity, log_prob in zip(capacities, mapped, strict=True):
        assert log_prob == pytest.approx(float(matching_log_prob(logits, value, capacity).value), abs=1e-5)


def enumerated(logits, capacity, draws):
    """All outcomes, where each of the draws is among them, and the draws."""
    values = np.asarray(enumerate_assignments(logits.shape[0], capacity))
    sample = np.asarray(GumbelMatching(logits, capacity).sample(jax.random.key(1), (draws,)))
    codes = {value.tobytes(): index for index, value in enumerate(values)}
    return values, np.array([codes[value.tobytes()] for value in sample]), sample


@pytest.mark.parametrize(("capacity", "num_draws"), [SLOWLY((2, 2, 2), 1), ((2, 1, 1), 1), SLOWLY((1, 1, 1, 1), 8192)])
def test_score_identity(capacity, num_draws):
    """`E[grad log P] = 0` under the distribution's own draws; the score of the Gibbs form is rejected.

    Two-sided z-scores with Bonferroni's correction over the logits.
    """
    logits = 1.5 * jax.random.normal(jax.random.key(0), (4, len(capacity)))
    values, index, _ = enumerated(logits, capacity, 4000)
    score = jax.grad(lambda a, z: matching_log_prob(a, z, capacity, num_draws=num_draws).value)
    scores = jax.jit(jax.vmap(score, (None, 0)))(logits, values)
    gibbs = jax.jacobian(
        lambda a: jax.nn.log_softmax(
            jnp.sum(jnp.where(values[..., None] == jnp.arange(len(capacity)), a, 0), axis=(1, 2))
        )
    )(logits)
    z, limit = largest_z(scores[index], 0)
    assert z < limit
    z, limit = largest_z(gibbs[index], 0)
    assert z > limit


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [(2, 1, 1, 1), (2, 2, 2, 1)])
def test_frequencies_agree_with_the_log_prob(capacity):
    """Chi-square with probabilities by sampling, 8,192 draws each; the Gibbs form is rejected."""
    logits = 1.5 * jax.random.normal(jax.random.key(0), (5, 4))
    values, _, sample = enumerated(logits, capacity, 20_000)
    probs = np.asarray(outcome_probabilities(logits, capacity, num_draws=8192), np.float64)
    assert abs(probs.sum() - 1) < 0.005
    assert chisquare_p_value(sample, values, probs / probs.sum()) > FALSE_FAIL_RATE
    gibbs = np.exp(np.take_along_axis(np.asarray(logits, np.float64)[None], values[..., None], axis=2).sum(axis=(1, 2)))
    assert chisquare_p_value(sample, values, gibbs / gibbs.sum()) < FALSE_FAIL_RATE


@pytest.mark.slow
def test_entropy_and_marginals_against_enumeration():
    """Both within 5 standard errors: 13 comparisons, false-fail rate below 1e-5. A wrong answer is rejected."""
    logits = jax.random.normal(jax.random.key(0), (4, 3))
    values, _, _ = enumerated(logits, (2, 1, 1), 1)
    probs = outcome_probabilities(logits, (2, 1, 1))
    d = GumbelMatching(logits, (2, 1, 1))
    estimate, error = d.entropy_with_error(jax.random.key(2), 400)
    entropy = -jnp.sum(probs * jnp.log(probs))
    assert abs(estimate - entropy) < 5 * error
    assert error < 0.1
    independent = -jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits))
    assert abs(estimate - independent) > 5 * error
    assert d.entropy(jax.random.key(2), 400) == estimate
    marginals, errors = jax.jit(d.marginal_probs, static_argnums=1)(jax.random.key(3), 2000)
    exact = jnp.einsum("v,vij->ij", probs, values[..., None] == jnp.arange(3))
    np.testing.assert_allclose(marginals.sum(axis=1), 1, atol=1e-5)
    assert (jnp.abs(marginals - exact) < 5 * errors).all()
    assert (errors < 0.01).all()  # counting would give 0.011 at a probability of one half
    assert (jnp.abs(marginals - jax.nn.softmax(logits)) > 5 * errors).any()


@pytest.mark.parametrize("draws", [0, 1, 2.5])
def test_draws_must_allow_an_error(draws):
    d = GumbelMatching(jnp.zeros((4, 2)), 2)
    with pytest.raises(ValueError, match="draws must be"):
        d.marginal_probs(jax.random.key(0), draws)
    with pytest.raises(ValueError, match="draws must be"):
        d.entropy(jax.random.key(0), draws)
