"""More than three experts: the integral by sampling, its reported error, and proposals that agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from gumbel_moe.distributions import GumbelMatching, enumerate_assignments, matching_log_prob
from gumbel_moe.distributions._price_integral import by_quadrature, by_sampling, keys_for, price_problem
from gumbel_moe.distributions._price_integral._competition import laplace
from gumbel_moe.distributions._price_integral._modes import modes
from gumbel_moe.distributions._price_integral._precision import log_mean_and_error
from gumbel_moe.distributions._price_integral._proposal import log_pairs

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("n", "k", "limit"),
    [
        pytest.param(1024, 16, 0.05, marks=SLOW),
        (8, 8, 0.3),
        pytest.param(64, 8, 0.05, marks=SLOW),
        pytest.param(32, 32, 0.3, marks=SLOW),
        pytest.param(128, 16, 0.05, marks=SLOW),
        pytest.param(1024, 64, 0.05, marks=SLOW),
        pytest.param(4096, 64, 0.05, marks=SLOW),
        pytest.param(16, 16, 0.3, marks=SLOW),
    ],
)
def test_equal_logits(n, k, limit):
    """`P = prod c_j! / n!`: 100 keys, of which at least 99 within 4 reported errors, and all within the limit."""
    c = n // k
    logits, assignment = jnp.zeros((n, k)), jnp.arange(n, dtype=jnp.int32) % k
    exact = k * gammaln(c + 1) - gammaln(n + 1)
    keys = jax.random.split(jax.random.key(0), 100)
    value, error = jax.lax.map(lambda key: matching_log_prob(logits, assignment, c, key=key), keys)
    off = np.abs(np.asarray(value, np.float64) - exact)
    assert off.max() < limit
    assert (off <= 4 * np.asarray(error)).sum() >= 99
    assert np.median(error) < limit


@SLOW
@pytest.mark.parametrize(("capacity", "n"), [((2, 1, 1, 2), 4), ((1, 1, 1, 1), 4)])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_probabilities_sum_to_one_beyond_quadrature(capacity, n, scale):
    """All outcomes by sampling. Their errors share the price vectors, so they are added rather than averaged out."""
    logits = scale * jax.random.normal(jax.random.key(3), (n, len(capacity)))
    values = enumerate_assignments(n, capacity)
    log_prob, error = matching_log_prob(logits, values, capacity)
    prob = np.exp(np.asarray(log_prob, np.float64))
    assert abs(prob.sum() - 1) < 4 * (prob * np.asarray(error)).sum()
    assert abs(prob.sum() - 1) < 0.05


@SLOW
@pytest.mark.parametrize("own", [False, True], ids=["any assignment", "own draws"])
def test_sharp_logits_agree_with_quadrature(own):
    """Uniform logits in +-50 for three experts: sampling, which four would get, against quadrature."""

    rng = np.random.default_rng(0)
    capacity = jnp.array([2, 2, 2])

    @jax.jit
    def both(logits, value):
        problem = price_problem(logits, value, capacity, jnp.ones(len(value), bool))
        return (*by_quadrature(problem), *by_sampling(problem, keys_for(jax.random.key(0), 512), None))

    for seed in range(10):
        logits = jnp.asarray(rng.uniform(-50, 50, size=(6, 3)), jnp.float32)
        any_value = jnp.asarray(rng.permutation(np.repeat(np.arange(3), 2)), jnp.int32)
        value = GumbelMatching(logits, 2).sample(jax.random.key(seed)) if own else any_value
        exact, allowance, estimate, error = both(logits, value)
        assert allowance < 1e-3
        assert abs(exact - estimate) < 4 * error + allowance
        assert error < (0.1 if own else 1)


@SLOW
@pytest.mark.parametrize(("n", "k", "scale"), [(64, 8, 3.0), (256, 16, 1.0), (256, 16, 3.0)])
def test_two_proposals_agree(n, k, scale):
    """Normal draws with all prices free against Student-t draws with one pinned: other coordinates, other densities."""

    logits = scale * jax.random.normal(jax.random.key(0), (n, k))
    value = GumbelMatching(logits, n // k).sample(jax.random.key(1))
    problem = jax.jit(price_problem)(logits, value, jnp.full(k, n // k), jnp.ones(n, bool))

    @jax.jit
    def estimates():
        found, integrand = modes(problem)
        keys = jax.random.split(jax.random.key(2), 32)

        def estimate(candidate):
            proposal = laplace(*candidate)
            pairs = jax.lax.map(lambda key: log_pairs(integrand, proposal, key, 64), keys)
            return log_mean_and_error(pairs.reshape(-1))

        return jax.lax.map(estimate, (found, jnp.array([False, True])))

    (one, other), (one_error, other_error) = estimates()
    assert abs(one - other) < 4 * jnp.hypot(one_error, other_error)
    assert jnp.hypot(one_error, other_error) < 0.2
    default, error = matching_log_prob(logits, value, n // k)
    assert abs(default - one) < 4 * jnp.hypot(error, one_error)


@SLOW
def test_more_draws_and_a_target_make_the_error_smaller():
    logits = 2 * jax.random.normal(jax.random.key(0), (16, 8))
    value = GumbelMatching(logits, 2).sample(jax.random.key(1))
    few, many = (matching_log_prob(logits, value, 2, num_draws=draws) for draws in (128, 8192))
    assert many.error < few.error / 4
    assert abs(few.value - many.value) < 4 * jnp.hypot(few.error, many.error)
    reached = matching_log_prob(logits, value, 2, num_draws=8192, target_error=0.03)
    assert many.error < reached.error <= 0.03
    assert abs(reached.value - many.value) < 4 * jnp.hypot(reached.error, many.error)
    d = GumbelMatching(logits, 2, num_draws=8192, target_error=0.03)
    np.testing.assert_allclose(d.log_prob(value), reached.value, rtol=1e-6)


@SLOW
def test_gradient_with_a_target():
    logits = 2 * jax.random.normal(jax.random.key(0), (16, 8))
    value = GumbelMatching(logits, 2).sample(jax.random.key(1))
    gradient = jax.grad(lambda a: GumbelMatching(a, 2, num_draws=8192, target_error=0.03).log_prob(value))(logits)
    other = jax.grad(lambda a: GumbelMatching(a, 2, num_draws=8192).log_prob(value))(logits)
    np.testing.assert_allclose(gradient, other, atol=0.1)
