"""Assignment sites in NumPyro's own ELBOs: `TraceGraph_ELBO` is unbiased, `Trace_ELBO` is not and does not say so.

Everything is compared with the sum over all outcomes of a small problem.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, enumerate_assignments
from tests import randomness

BOTH = pytest.mark.parametrize("cls", [SkipAssignment, GumbelMatching])
ONE_SLOW = pytest.mark.parametrize("cls", [SkipAssignment, pytest.param(GumbelMatching, marks=pytest.mark.slow)])
N, CAPACITY = 4, (2, 3)
Y = jnp.array([-1.0, 0.5, 1.0, 2.0])
PRIOR = jnp.array([[0.5, -0.5]] * N)
PARAMS = {
    "loc": jnp.array([-0.5, 1.5]),
    "logits": jnp.array([[1.0, 0.0], [0.3, 0.0], [-0.5, 0.0], [-1.0, 0.5]]),
}


def means(z, loc):
    """Of a datapoint that was skipped, half its expert's: so that the skipping matters too."""
    return jnp.where(z >= 0, 1, 0.5) * loc[jnp.where(z < 0, -1 - z, z)]


def model(cls):
    loc = numpyro.param("loc", PARAMS["loc"])
    z = numpyro.sample("z", cls(PRIOR, CAPACITY))
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(means(z, loc), 1.0), obs=Y)


def guide(cls):
    numpyro.sample("z", cls(numpyro.param("logits", PARAMS["logits"]), CAPACITY))


def outcomes(cls):
    if cls is GumbelMatching:
        return enumerate_assignments(N, CAPACITY)
    values = jnp.array(list(itertools.product(range(-2, 2), repeat=N)), jnp.int32)
    return values[SkipAssignment(PRIOR, CAPACITY).support(values)]


def enumerated_loss(params, cls, z):
    log_q = cls(params["logits"], CAPACITY).log_prob(z)
    log_p = cls(PRIOR, CAPACITY).log_prob(z) + norm.logpdf(Y, means(z, params["loc"]), 1.0).sum(axis=1)
    return -jnp.sum(jnp.exp(log_q) * (log_p - log_q))


@functools.cache
def enumerated(cls):
    """The loss and its gradient as a function of the parameters, compiled once for all tests."""
    z = outcomes(cls)
    return jax.jit(jax.value_and_grad(lambda params: enumerated_loss(params, cls, z)))


def largest_z(cls, elbo, draws=3_000):
    """Largest z-score of value and gradient against enumeration, and the limit for the false-fail rate."""
    truth = enumerated(cls)(PARAMS)
    estimate = jax.value_and_grad(lambda p, key: elbo.loss(key, p, model, guide, cls))
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = jax.jit(lambda keys: jax.lax.map(lambda key: estimate(PARAMS, key), keys, batch_size=500))(keys)
    return randomness.largest_z(drawn, truth)


@BOTH
def test_trace_graph_is_unbiased(cls):
    z, limit = largest_z(cls, TraceGraph_ELBO(num_particles=1))
    assert z < limit


@ONE_SLOW
def test_trace_elbo_is_rejected(cls):
    z, limit = largest_z(cls, Trace_ELBO(num_particles=1))
    assert z > limit


@ONE_SLOW  # the README's first NumPyro program is the same for GumbelMatching, and runs with the tests
def test_svi_and_predictive(cls):
    """SVI comes close to the best ELBO, and the guide that it finds predicts in the right shapes."""
    svi = SVI(model, guide, numpyro.optim.Adam(0.05), loss=TraceGraph_ELBO(num_particles=4))
    result = svi.run(jax.random.key(0), 500, cls, progress_bar=False)
    before, after = (enumerated(cls)(params)[0] for params in (PARAMS, result.params))
    assert after < before - 0.2
    posterior = Predictive(guide, params=result.params, num_samples=20)(jax.random.key(1), cls)
    assert posterior["z"].shape == (20, N)
    predicted = Predictive(model, posterior, params=result.params)(jax.random.key(2), cls)
    assert predicted["y"].shape == (20, N)
