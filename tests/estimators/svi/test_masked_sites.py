"""`AssignmentELBO` under `handlers.mask`, `dist.mask` and `handlers.scale`, against enumeration."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from gumbel_moe.estimators import AssignmentELBO
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter
from tests import randomness

DRAWS = 10_000
Y, LOC, PRIOR = jnp.array([-1.0, 0.5, 2.0, 9.0]), jnp.array([-0.5, 1.5]), jnp.array([0.3, 0.7])
PARAMS = {"logits": jnp.array([[0.0, 1.0], [0.5, -0.5], [-1.0, 1.0], [2.0, 0.0]])}
PRESENT = jnp.array([True, True, True, False])
MODEL_SCALE, GUIDE_SCALE = 2.0, 0.5


def model(present=PRESENT, of_likelihood=PRESENT):
    with numpyro.plate("data", 4), handlers.scale(scale=MODEL_SCALE):
        with handlers.mask(mask=present):
            z = numpyro.sample("z", dist.Categorical(PRIOR))
        with handlers.mask(mask=of_likelihood):
            numpyro.sample("y", dist.Normal(LOC[z], 1.0), obs=Y)


def guide(present=PRESENT):
    logits = numpyro.param("logits", PARAMS["logits"])
    with numpyro.plate("data", 4), handlers.scale(scale=GUIDE_SCALE):
        numpyro.sample("z", dist.Categorical(logits=logits).mask(present))


def enumerated(params, present=PRESENT, guide_scale=GUIDE_SCALE):
    log_q = jax.nn.log_softmax(params["logits"], axis=1)
    log_p = jnp.log(PRIOR) + dist.Normal(LOC, 1.0).log_prob(Y[:, None])
    terms = jnp.exp(log_q) * (MODEL_SCALE * log_p - guide_scale * log_q)
    return -jnp.sum(jnp.where(present[:, None], terms, 0))


def drawn(elbo):
    """Values and gradients."""
    loss = jax.value_and_grad(lambda params, key: elbo.loss(key, params, model, guide))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return jax.jit(lambda keys: jax.lax.map(partial(loss, PARAMS), keys, batch_size=2000))(keys)


def largest_z(draws, truth=enumerated):
    """Over the limit for the false-fail rate."""
    z, limit = randomness.largest_z(draws, jax.jit(jax.value_and_grad(truth))(PARAMS), rounding=1e-6)
    return z / limit


@pytest.mark.parametrize(
    ("router", "particles"),
    [
        (IndependentRouter(), 1),
        pytest.param(SkipRouter(1), 2, marks=pytest.mark.slow),
        pytest.param(IndependentRouter(), 3, marks=pytest.mark.slow),
        pytest.param(SkipRouter((1, 2)), 1, marks=pytest.mark.slow),
        pytest.param(GumbelMatchingRouter((1, 2)), 2, marks=pytest.mark.slow),  # three places, for who takes part
    ],
    ids=str,
)
def test_masked_and_scaled_value_and_gradient_are_unbiased(router, particles):
    """The truth with everybody, and the one without the guide's scale, are rejected."""
    draws = drawn(AssignmentELBO({"z": router}, num_particles=particles))
    assert largest_z(draws) < 1
    assert largest_z(draws, partial(enumerated, present=jnp.ones(4, bool))) > 1
    assert largest_z(draws, partial(enumerated, guide_scale=1.0)) > 1


@pytest.mark.slow
def test_draws_without_weights_are_rejected():
    router = partial(SkipRouter(1, corrected=False))
    assert largest_z(drawn(AssignmentELBO({"z": router}, num_particles=2))) > 1


def test_other_masks_in_the_model():
    """Exact with every expert covered, whatever the masked logits; NaN for a term that would be left out in silence."""
    elbo = AssignmentELBO({"z": IndependentRouter()}, num_particles=2)
    params = {"logits": PARAMS["logits"].at[3].set(jnp.nan)}
    everybody = jnp.ones(4, bool)

    @jax.jit
    @jax.value_and_grad
    def loss(params, in_model, of_likelihood, in_guide):
        models = partial(model, in_model, of_likelihood), partial(guide, in_guide)
        return elbo.loss(jax.random.key(0), params, *models)

    with numpyro.validation_enabled(False):
        value, gradient = loss(params, PRESENT, PRESENT, PRESENT)
        assert jnp.isnan(loss(params, PRESENT, everybody, PRESENT)[0])
        assert jnp.isnan(loss(params, everybody, PRESENT, PRESENT)[1]["logits"]).any()
    truth, slope = jax.jit(jax.value_and_grad(enumerated))(PARAMS)
    np.testing.assert_allclose(value, truth, rtol=1e-5)
    np.testing.assert_allclose(gradient["logits"], slope["logits"], rtol=1e-4, atol=1e-5)
    # What the model alone masks is a term of 0: the guide's own remains.
    alone = jax.nn.log_softmax(PARAMS["logits"][3])
    value, _ = loss(PARAMS, PRESENT, PRESENT, everybody)
    np.testing.assert_allclose(value, truth + GUIDE_SCALE * jnp.sum(jnp.exp(alone) * alone), rtol=1e-5)


def test_a_mask_of_the_guide_alone_is_refused():
    def unmasked():
        with numpyro.plate("data", 4):
            numpyro.sample("z", dist.Categorical(PRIOR))

    elbo = AssignmentELBO({"z": SkipRouter(1)})
    with pytest.raises(ValueError, match="site 'z' is masked in the guide and must be in the model too"):
        jax.eval_shape(lambda: elbo.loss(jax.random.key(0), {}, unmasked, guide))
