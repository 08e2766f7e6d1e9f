"""Latent routing: density by hand, an exact guide, SVI that raises the ELBO, loads that keep to the capacity."""

import doctest
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jaxtyping import TypeCheckError
from numpyro import handlers
from numpyro.infer import SVI, Predictive
from numpyro.infer.util import log_density
from scipy import stats
from sklearn.datasets import load_digits

from gumbel_moe.estimators import AssignmentELBO
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter, load
from models import latent_routing as lr
from models.data import load_halves

K, N = 3, 90
MODEL, GUIDE = (partial(program, num_experts=K) for program in (lr.model, lr.guide))


@pytest.fixture(scope="module")
def data():
    halves = load_halves(0)
    return halves.train_x[:N], halves.train_y[:N]


def start(seed=0, k=K):
    return lr.starting_params(jax.random.key(seed), k)


def by_hand(params, x, y):
    """`log p(z, y | x)` of every expert, by SciPy and loops."""
    gate, experts, noise = (np.asarray(params[name], np.float64) for name in ("gate", "experts", "noise"))
    table = np.empty((len(x), len(noise)))
    for i, (row, target) in enumerate(zip(np.asarray(x), np.asarray(y), strict=True)):
        inputs = np.array([1.0, *row])
        wanted = np.array([inputs @ gate[:, j] for j in range(len(noise))])
        for j in range(len(noise)):
            chosen = wanted[j] - np.log(np.sum(np.exp(wanted)))
            table[i, j] = chosen + stats.norm.logpdf(target, inputs @ experts[:, j], noise[j])
    return table


def test_halves_are_standardised_by_the_training_part_and_follow_the_seed():
    halves, again, other = (load_halves(seed) for seed in (3, 3, 4))
    assert halves.train_x.shape == (800, 2)
    assert halves.test_x.shape == (997, 2)
    assert halves.train_images.shape == (800, 8, 8)
    for part in (halves.train_x, halves.train_y):
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(part.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_array_equal(halves.test_y, again.test_y)
    assert not np.array_equal(halves.test_y, other.test_y)


def test_components_by_eigenvectors_of_the_covariance():
    halves = load_halves(0)
    lower = halves.train_images[:, 4:].reshape(800, -1)
    values, vectors = np.linalg.eigh(np.cov(lower.T))
    target = (lower - lower.mean(axis=0)) @ vectors[:, -1] / np.sqrt(values[-1])
    assert abs(np.corrcoef(target, halves.train_y)[0, 1]) > 0.9999
    known = {image.tobytes() for image in load_digits().images / 16}
    assert {image.tobytes() for image in halves.train_images} <= known


def test_log_density_by_hand(data):
    x, y = data
    params, z = start(), jnp.arange(N, dtype=jnp.int32) % K
    with handlers.substitute(data={"z": z}):
        total = jax.jit(lambda params: log_density(MODEL, (x, y), {}, params)[0])(params)
    np.testing.assert_allclose(total, by_hand(params, x, y)[np.arange(N), z].sum(), rtol=1e-5)


def test_enumerated_functions_by_hand(data):
    x, y = data
    params = {**start(), "recognition": start(5)["recognition"]}  # a guide that is not the posterior
    joint = by_hand(params, x, y)
    likelihood = np.log(np.exp(joint).sum(axis=1))
    np.testing.assert_allclose(lr.log_joint(params, x, y), joint, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(lr.log_likelihood(params, x, y), likelihood, rtol=1e-4, atol=1e-4)
    posterior = np.exp(joint - likelihood[:, None])
    np.testing.assert_allclose(lr.responsibilities(params, x, y), posterior, rtol=1e-3, atol=1e-5)
    with handlers.trace() as drawn, handlers.seed(rng_seed=0), handlers.substitute(data=params):
        GUIDE(x, y)
    log_q = np.asarray(jax.nn.log_softmax(drawn["z"]["fn"].logits, axis=1))
    np.testing.assert_allclose(lr.log_q(params, x, y), log_q, rtol=1e-4, atol=1e-5)
    expected = np.sum(np.exp(log_q) * (joint - log_q), axis=1)
    np.testing.assert_allclose(lr.elbo(params, x, y), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_log_likelihood_bounds_the_elbo_and_the_exact_guide_reaches_it(data, seed):
    params = start(seed)
    likelihood = lr.log_likelihood(params, *data)
    np.testing.assert_allclose(lr.elbo(params, *data), likelihood, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(jnp.exp(lr.log_q(params, *data)), lr.responsibilities(params, *data), atol=1e-4)
    other = {**params, "recognition": start(seed + 10)["recognition"]}
    assert (lr.elbo(other, *data) <= likelihood + 1e-4).all()
    assert lr.elbo(other, *data).mean() < likelihood.mean() - 0.1


def test_as_many_particles_as_experts_give_the_enumerated_elbo(data):
    params = {**start(), "recognition": start(5)["recognition"]}
    exact = AssignmentELBO({"z": IndependentRouter()}, num_particles=K)
    loss = jax.jit(lambda p: exact.loss(jax.random.key(0), p, MODEL, GUIDE, *data))
    np.testing.assert_allclose(-loss(params), lr.elbo(params, *data).sum(), rtol=1e-5)


CAPACITY = N // K


@pytest.fixture(
    scope="module",
    params=[pytest.param(SkipRouter(CAPACITY), marks=pytest.mark.slow), GumbelMatchingRouter(CAPACITY)],
    ids=lambda router: type(router).__name__,
)
def trained(request, data):
    """A router, the params from which it started, with a guide that knows nothing, and those to which SVI led."""
    first = {**start(), "recognition": jnp.zeros((K, 4, 4))}
    optimiser = numpyro.optim.Adam(lambda step: 0.05 * 0.01 ** (step / 800))
    svi = SVI(MODEL, GUIDE, optimiser, AssignmentELBO({"z": request.param}, num_particles=2))
    result = svi.run(jax.random.key(1), 800, *data, init_params=first, progress_bar=False)
    return request.param, first, result.params


def test_svi_raises_the_elbo_below_its_bound(trained, data):
    _, before, after = trained
    assert lr.elbo(after, *data).mean() > lr.elbo(before, *data).mean() + 0.3
    assert lr.elbo(after, *data).mean() <= lr.log_likelihood(after, *data).mean()


def test_the_guide_comes_close_to_the_exact_responsibilities(trained, data):
    """In total variation, mean over datapoints; a guide that knows nothing is far away."""
    _, before, after = trained

    def away(params):
        return jnp.abs(jnp.exp(lr.log_q(params, *data)) - lr.responsibilities(after, *data)).sum(axis=1).mean() / 2

    assert away(after) < 0.05
    assert away(before) > 0.2


def test_loads_keep_to_the_capacity_although_the_guide_wants_more(trained, data):
    router, _, params = trained
    log_q = lr.log_q(params, *data)
    assert jnp.exp(log_q).sum(axis=0).max() > 1.2 * CAPACITY
    loads = jax.jit(jax.vmap(lambda key: load(router(key, log_q))))(jax.random.split(jax.random.key(2), 50))
    assert loads.max() == CAPACITY


def test_predictive(trained, data):
    _, _, params = trained
    x, y = data
    draws = Predictive(MODEL, params=params, num_samples=200)(jax.random.key(3), x)
    assert draws["y"].shape == draws["z"].shape == (200, N)
    # Three quarters of the targets have at least a twentieth of the draws on either side.
    inside = (draws["y"] < y).mean(axis=0)
    assert ((inside > 0.05) & (inside < 0.95)).mean() > 0.75


def test_shapes_in_signatures_are_checked(data):
    x, y = data
    with pytest.raises(TypeCheckError):
        lr.log_joint(start(), x[:, 0], y)
    with pytest.raises(TypeCheckError), handlers.seed(rng_seed=0):
        lr.model(x, y[:, None])


def test_example_in_the_docstring():
    failed, tried = doctest.testmod(lr)
    assert tried > 0
    assert failed == 0
