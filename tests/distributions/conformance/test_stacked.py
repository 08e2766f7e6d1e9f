"""Distributions whose arrays `vmap` or NumPyro's `scan` has stacked, capacities too: as one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.infer import SVI, Predictive, TraceGraph_ELBO
from numpyro.infer.util import log_density

from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from tests.distributions.conformance.cases import ALL_ONE_SLOW, BOTH, KEY, LOGITS, VALUE, made, shared

STEPS = 3
CAPACITIES = np.array([[2, 2], [4, 1], [1, 4]], np.int32)  # one for every problem
VALUES = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1]], np.int32)  # inside their supports


def one(cls, i, capacities=CAPACITIES):
    return made(cls, jnp.asarray(LOGITS[i]), capacities[i], validate_args=False)


def together(cls, values, capacities=CAPACITIES):
    """The log-probabilities, problem by problem; of shapes that are compiled already."""
    pairs = zip(capacities, values, strict=True)
    return np.array([shared(cls, c, validate_args=False).log_prob(v)[i] for i, (c, v) in enumerate(pairs)])


def series(cls, wrap, obs=None):
    """A site in a scan, `wrap` being what is done to its distribution."""

    def step(carry, item):
        logits, value = item
        return carry, numpyro.sample("z", wrap(made(cls, logits, 2), logits), obs=value)

    return scan(step, 0.0, (jnp.asarray(LOGITS), obs))[1]


WRAPPERS = {
    "plain": (lambda d, a: d, 1),
    "masked": (lambda d, a: d.mask(a[0, 0] < 1), LOGITS[:, 0, 0] < 1),
    "unmasked": (lambda d, a: d.mask(False), 0),
}


@pytest.mark.each_choice
@ALL_ONE_SLOW
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_density_of_a_scanned_site(cls, wrap):
    wrapped, factor = WRAPPERS[wrap]
    expected = np.sum(factor * np.asarray(shared(cls).log_prob(VALUE)))

    def density(program, latent, *args):
        return log_density(program, (cls, wrapped, *args), {}, latent)[0]

    values = {"z": jnp.asarray(VALUE)}
    assert density(series, values) == pytest.approx(expected, rel=1e-5)
    if wrap == "plain":
        assert density(handlers.scale(series, 2.5), values) == pytest.approx(2.5 * expected, rel=1e-5)
        assert density(handlers.mask(series, mask=False), values) == 0
        assert density(series, {}, VALUE) == pytest.approx(expected, rel=1e-5)
        conditioned = handlers.seed(handlers.condition(series, values), KEY)
        assert density(conditioned, {}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cls", [GumbelMatching, pytest.param(SkipAssignment, marks=pytest.mark.slow)])
def test_density_of_a_scanned_site_under_jit(cls):
    """Where the stacked capacities cannot be seen to be equal."""
    density = jax.jit(lambda v: log_density(series, (cls, lambda d, a: d), {}, {"z": v})[0])(VALUE)
    assert density == pytest.approx(float(shared(cls).log_prob(VALUE).sum()), rel=1e-5)


@pytest.mark.each_choice
@ALL_ONE_SLOW
@pytest.mark.parametrize("expanded", [False, True], ids=["batch", "expanded"])
def test_plate_inside_a_scan(cls, expanded):
    """As many axes in front as there are steps, and none of the size of the plate."""
    logits = np.stack([LOGITS[:2], LOGITS[1:], LOGITS[::2]])
    logits = logits[:, 0] if expanded else logits
    values = jnp.asarray(np.stack([VALUE[:2], VALUE[1:], VALUE[::2]]))

    def program():
        def step(carry, item):
            with numpyro.plate("rows", 2):
                return carry, numpyro.sample("z", made(cls, item, 2))

        return scan(step, 0.0, jnp.asarray(logits))[1]

    site = handlers.trace(handlers.seed(program, KEY)).get_trace()["z"]
    assert (site["fn"].batch_shape, site["value"].shape) == ((STEPS, 2), (STEPS, 2, 4))
    assert site["fn"].support(site["value"]).all()
    assert site["fn"].shape() == (STEPS, 2, 4)
    if not expanded:  # NumPyro's own distributions get that wrong as well
        assert site["fn"].sample(KEY, (5,)).shape == (5, STEPS, 2, 4)
    rows = np.broadcast_to(logits[:, None] if expanded else logits, (STEPS, 2, 4, 2))
    expected = made(cls, rows, 2).log_prob(values).sum()
    np.testing.assert_allclose(log_density(program, (), {}, {"z": values})[0], expected, rtol=1e-5)


@pytest.mark.slow
@BOTH
def test_svi_and_predictive_through_a_scan(cls):
    def model():
        def step(carry, _):
            z = numpyro.sample("z", cls(jnp.zeros((4, 2)), 2))
            numpyro.sample("y", dist.Normal(jnp.where(z < 0, ~z, z), 1.0).to_event(1), obs=jnp.arange(4.0) % 2)
            return carry, z

        return scan(step, 0.0, None, length=STEPS)[1]

    def guide():
        logits = numpyro.param("logits", jnp.asarray(LOGITS))
        scan(lambda carry, a: (carry, numpyro.sample("z", cls(a, 2))), 0.0, logits)

    svi = SVI(model, guide, numpyro.optim.Adam(0.1), TraceGraph_ELBO())
    result = svi.run(KEY, 3, progress_bar=False)
    assert np.isfinite(result.losses).all()
    assert (np.asarray(result.params["logits"]) != LOGITS).any()
    drawn = Predictive(guide, params=result.params, num_samples=2)(KEY)["z"]
    assert drawn.shape == (2, STEPS, 4)


@ALL_ONE_SLOW
def test_methods_of_stacked_distributions(cls):
    """Capacities that differ from problem to problem; with the batch shape as stacked, and promoted."""
    stacked = jax.vmap(lambda a, c: made(cls, a, c, validate_args=False))(LOGITS, CAPACITIES)
    promoted = promote_batch_shape(stacked)
    assert (stacked.batch_shape, promoted.batch_shape, promoted.shape((2,))) == ((), (3,), (2, 3, 4))
    expected = together(cls, VALUES)
    for d in (stacked, promoted):
        np.testing.assert_allclose(d.log_prob(VALUES), expected, rtol=1e-5)
        assert d.support(VALUES).tolist() == [True, True, True]
        assert d.support(VALUES[[1, 2, 0]]).tolist() == [False, False, False]
        drawn = d.sample(KEY, (20,))
        assert drawn.shape == (20, 3, 4)
        for i in range(3):
            assert one(cls, i).support(drawn[:, i]).all()
        assert len(np.unique(np.asarray(drawn).reshape(20, -1), axis=0)) > 10
        inside = d.support.feasible_like(drawn)
        assert d.support(inside).all()
    np.testing.assert_array_equal(promoted.expand((20, 3)).sample(KEY), drawn)
    alone = promote_batch_shape(jax.vmap(lambda c: made(cls, LOGITS[0], c, validate_args=False))(CAPACITIES))
    assert alone.sample(KEY).shape == (3, 4)


@pytest.mark.slow
def test_matching_of_stacked_distributions():
    """Draws and their conditionals are those of one problem; values and errors too."""
    stacked = promote_batch_shape(jax.vmap(lambda a, c: GumbelMatching(a, c))(LOGITS, CAPACITIES))
    value, log_q = stacked.sample_with_conditionals(KEY)
    np.testing.assert_array_equal(value, stacked.sample(KEY))
    for i in range(3):
        same = GumbelMatching(LOGITS, CAPACITIES[i])  # its draws are the batch's
        np.testing.assert_array_equal(value[i], same.sample(KEY)[i])
        np.testing.assert_allclose(log_q[i], same.sample_with_conditionals(KEY)[1][i], rtol=1e-5)
    log_prob, error = stacked.log_prob_with_error(VALUES)
    np.testing.assert_allclose(log_prob, together(GumbelMatching, VALUES), rtol=1e-5)
    assert error.shape == (3,)
    assert stacked.marginal_probs(KEY, 2).value.shape == (3, 4, 2)
    assert stacked.entropy_with_error(KEY, 2).value.shape == (3,)
    small = promote_batch_shape(jax.vmap(lambda c: GumbelMatching(LOGITS[0], c))(np.array([1, 2])))
    with pytest.raises(ValueError, match="capacity has room for 2 datapoints"):
        small.sample(KEY)


def test_a_capacity_for_every_problem_of_a_batch():
    """What a stacked distribution holds, its constructor takes."""
    d = GumbelMatching(LOGITS, CAPACITIES)
    assert (d.batch_shape, d.capacity.shape) == ((3,), (3, 2))
    assert d.support(VALUES).tolist() == [True, True, True]
    again = GumbelMatching(**shared(GumbelMatching).get_args())
    assert jax.tree.structure(again) == jax.tree.structure(shared(GumbelMatching))
    for wrong in (CAPACITIES[:2], CAPACITIES[None], np.ones((3, 3), int)):
        with pytest.raises(ValueError, match=r"capacity must be an int or \(2,\) ints, for a batch of shape \(3,\)"):
            GumbelMatching(LOGITS, wrong)
