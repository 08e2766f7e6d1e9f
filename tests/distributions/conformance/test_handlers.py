"""Effect handlers around a site of assignments."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from tests.distributions.conformance.cases import ALL, KEY, LOGITS, VALUE, shared


def model(cls, obs=None):
    """A batch of assignments, and something that depends on the experts."""
    with numpyro.plate("batch", 3):
        z = numpyro.sample("z", shared(cls), obs=obs)
        expert = jnp.where(z < 0, ~z, z)
        return numpyro.sample("y", dist.Normal(expert.astype(LOGITS.dtype), 1.0).to_event(1))


def run(cls, *wrap, **options):
    program = handlers.seed(model, KEY)
    for handler in wrap:
        program = handler(program)
    return handlers.trace(program).get_trace(cls, **options)


@ALL
def test_seed_and_trace(cls):
    site = run(cls)["z"]
    assert (site["type"], site["is_observed"], site["value"].shape) == ("sample", False, (3, 4))
    assert site["value"].dtype == jnp.int32
    assert site["fn"].support(site["value"]).all()
    np.testing.assert_array_equal(site["value"], run(cls)["z"]["value"])
    numbered = handlers.trace(handlers.seed(model, rng_seed=3)).get_trace(cls)["z"]["value"]
    old_style = handlers.trace(handlers.seed(model, jax.random.PRNGKey(3))).get_trace(cls)["z"]["value"]
    np.testing.assert_array_equal(numbered, old_style)
    with handlers.seed(rng_seed=3), handlers.trace() as sites:
        model(cls)
    np.testing.assert_array_equal(sites["z"]["value"], numbered)
    observed = run(cls, obs=VALUE)["z"]
    assert observed["is_observed"]
    np.testing.assert_array_equal(observed["value"], VALUE)


@ALL
def test_substitute_condition_and_do(cls):
    substituted = run(cls, lambda m: handlers.substitute(m, {"z": VALUE}))
    conditioned = run(cls, lambda m: handlers.condition(m, {"z": VALUE}))
    for sites, observed in [(substituted, False), (conditioned, True)]:
        np.testing.assert_array_equal(sites["z"]["value"], VALUE)
        assert sites["z"]["is_observed"] == observed
    by_function = run(
        cls, lambda m: handlers.substitute(m, substitute_fn=lambda s: VALUE if s["name"] == "z" else None)
    )
    np.testing.assert_array_equal(by_function["z"]["value"], VALUE)
    expert = jnp.where(VALUE < 0, ~VALUE, VALUE)
    forced = run(cls, lambda m: handlers.do(m, {"z": jnp.asarray(VALUE)}))
    np.testing.assert_array_equal(forced["y"]["fn"].base_dist.loc, expert)
    released = run(cls, handlers.uncondition, obs=VALUE)
    assert not released["z"]["is_observed"]


@ALL
def test_replay_and_block(cls):
    first = run(cls)
    replayed = handlers.trace(handlers.replay(handlers.seed(model, jax.random.key(9)), first)).get_trace(cls)
    np.testing.assert_array_equal(replayed["z"]["value"], first["z"]["value"])
    assert "z" not in run(cls, lambda m: handlers.block(m, hide=["z"]))
    assert {"z", "y"} & set(run(cls, lambda m: handlers.block(m, expose=["z"]))) == {"z"}


@ALL
def test_log_density(cls):
    """Of the site alone, and under `mask` and `scale`."""
    expected = np.asarray(shared(cls).log_prob(VALUE))
    mask = np.array([True, False, True])

    def site():
        with numpyro.plate("batch", 3):
            numpyro.sample("z", shared(cls))

    def observed():
        with numpyro.plate("batch", 3):
            numpyro.sample("z", shared(cls), obs=VALUE)

    def density(program, latent):
        return log_density(program, (), {}, {"z": VALUE} if latent else {})[0]

    for program, latent in [(site, True), (observed, False)]:
        assert density(program, latent) == pytest.approx(expected.sum(), rel=1e-5)
        assert density(handlers.scale(program, 2.5), latent) == pytest.approx(2.5 * expected.sum(), rel=1e-5)
        assert density(handlers.mask(program, mask=jnp.array(mask)), latent) == pytest.approx(expected[mask].sum())
        assert density(handlers.mask(program, mask=False), latent) == 0
        assert density(handlers.block(handlers.seed(program, KEY)), latent) == 0


@ALL
def test_partly_observed(cls):
    """`obs_mask`: the observed rows stay, the others are a latent site of their own."""
    known = jnp.array([True, False, True])

    def site():
        with numpyro.plate("batch", 3):
            return numpyro.sample("z", shared(cls), obs=VALUE, obs_mask=known)

    sites = handlers.trace(handlers.seed(site, KEY)).get_trace()
    value = np.asarray(sites["z"]["value"])
    np.testing.assert_array_equal(value[[0, 2]], VALUE[[0, 2]])
    np.testing.assert_array_equal(value[1], sites["z_unobserved"]["value"][1])
    density = log_density(site, (), {}, {"z_unobserved": VALUE})[0]
    assert density == pytest.approx(float(shared(cls).log_prob(VALUE).sum()), rel=1e-5)


@ALL
def test_without_a_plate(cls):
    sites = handlers.trace(handlers.seed(lambda: numpyro.sample("z", shared(cls).to_event(1)), KEY)).get_trace()
    assert sites["z"]["value"].shape == (3, 4)
    assert sites["z"]["fn"].log_prob(VALUE).shape == ()
    many = jax.eval_shape(handlers.seed(lambda: numpyro.sample("z", shared(cls), sample_shape=(2,)), KEY))
    assert many.shape == (2, 3, 4)
