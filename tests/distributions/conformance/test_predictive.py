"""`Predictive` and `log_likelihood` over a site of assignments, sequential and in parallel."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive, log_likelihood

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment
from tests.distributions.conformance.cases import ALL, ALL_ONE_SLOW, BOTH, KEY, LOGITS, VALUE, made, shared


def model(cls, obs=None):
    shift = numpyro.sample("shift", dist.Normal(jnp.zeros((4, 2)), 1.0).to_event(2))
    with numpyro.plate("batch", 3):
        z = numpyro.sample("z", made(cls, LOGITS + shift, 2), obs=obs)
        numpyro.deterministic("expert", jnp.where(z < 0, ~z, z))


SHARP = np.where(np.array([[0, 1], [0, 1], [1, 0], [1, 0]], bool), 100, -100).astype(np.float32)  # experts 1 1 0 0


@pytest.mark.parametrize(
    ("cls", "parallel"),
    [
        (SkipAssignment, False),
        (SkipAssignment, True),
        (UniformAssignment, False),
        (UniformAssignment, True),
        (GumbelMatching, False),
        pytest.param(GumbelMatching, True, marks=pytest.mark.slow),
    ],
)
def test_prior(cls, parallel):
    draws = Predictive(model, num_samples=4, parallel=parallel)(KEY, cls)
    assert (draws["z"].shape, draws["z"].dtype) == ((4, 3, 4), jnp.int32)
    assert shared(cls).support(draws["z"]).all()
    assert draws["expert"].shape == (4, 3, 4)
    assert len(np.unique(np.asarray(draws["z"]), axis=0)) > 1


@BOTH
@pytest.mark.parametrize("batch_ndims", [0, 1, 2])
def test_posterior(cls, batch_ndims):
    """Every draw is made with the logits of its own posterior sample."""
    shift = np.broadcast_to(SHARP, (2, 1, 4, 2)[2 - batch_ndims :]).copy()
    if batch_ndims:
        shift[-1 if batch_ndims == 1 else 1] *= -1
    draws = Predictive(model, {"shift": shift}, batch_ndims=batch_ndims, return_sites=["z"])(KEY, cls)
    assert set(draws) == {"z"}
    assert draws["z"].shape == (*shift.shape[:-2], 3, 4)
    np.testing.assert_array_equal(
        draws["z"], np.broadcast_to(np.argmax(shift, axis=-1)[..., None, :], draws["z"].shape)
    )


@ALL
def test_posterior_assignments(cls):
    """Posterior samples of the assignment itself are kept, and what follows from them is computed."""
    samples = {"z": np.stack([VALUE, VALUE[::-1]]), "shift": np.zeros((2, 4, 2), np.float32)}
    draws = Predictive(model, samples)(KEY, cls)
    np.testing.assert_array_equal(draws["expert"], samples["z"])


@ALL_ONE_SLOW
def test_log_likelihood(cls):
    shift = np.stack([np.zeros((4, 2), np.float32), LOGITS[0]])
    actual = log_likelihood(model, {"shift": shift}, cls, obs=VALUE)["z"]
    assert actual.shape == (2, 3)
    for row, moved in zip(actual, shift, strict=True):
        np.testing.assert_allclose(row, made(cls, jnp.asarray(LOGITS + moved), 2).log_prob(VALUE), rtol=1e-4)


@ALL
def test_in_parallel_with_a_mapped_key(cls):
    """A whole `Predictive` inside `jit` and `vmap`."""
    run = jax.jit(jax.vmap(lambda key: Predictive(model, num_samples=1)(key, cls)["z"]))
    shape = jax.eval_shape(run, jax.random.split(KEY, 2))
    assert (shape.shape, shape.dtype) == ((2, 1, 3, 4), jnp.int32)
