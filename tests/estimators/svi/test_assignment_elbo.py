"""`AssignmentELBO`: unbiased against enumeration, less noisy than `TraceGraph_ELBO`, clear about what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import SVI, TraceGraph_ELBO

from gumbel_moe.estimators import AssignmentELBO, _assignment_elbo
from gumbel_moe.routing import (
    ROUTERS,
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    SkipRouter,
    as_one_batch,
    make_router,
)
from tests import randomness
from tests.estimators.svi import mixture

N, K = 12, 3
SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
DRAWS = 20_000


def largest_z(elbo, truth_seed=None):
    """Largest z-score of the mean gradient against enumeration, and the limit for the false-fail rate."""
    x, y = mixture.data(N, K)
    params = mixture.parameters(N, K)
    truth = jax.jit(jax.grad(mixture.enumerated_loss), static_argnums=3)(params, x, y, K)
    exact = np.concatenate([truth["lines"].ravel(), truth["logits"].ravel()])
    return randomness.largest_z(mixture.gradients(elbo, params, (x, y, K), DRAWS), exact, rounding=1e-6)


@pytest.mark.parametrize(
    ("router", "particles"),
    [
        SLOWLY(IndependentRouter(), 1),
        SLOWLY(IndependentRouter(), 2),
        SLOWLY(IndependentRouter(), 5),
        SLOWLY(SkipRouter(4), 1),
        (SkipRouter((2, 3, 6)), 4),
        SLOWLY(GumbelMatchingRouter(6), 2),
    ],
    ids=lambda v: type(v).__name__ if callable(v) else str(v),
)
def test_gradient_is_unbiased(router, particles):
    z, limit = largest_z(AssignmentELBO({"z": router}, num_particles=particles))
    assert z < limit


@pytest.mark.parametrize("router", [SkipRouter(4, corrected=False), SLOWLY(GumbelMatchingRouter(6, corrected=False))])
def test_draws_without_weights_are_rejected(router):
    z, limit = largest_z(AssignmentELBO({"z": lambda key, logits: router(key, logits)}, num_particles=2))
    assert z > limit


def test_value_is_unbiased_and_exact_with_as_many_particles_as_experts():
    x, y = mixture.data(N, K)
    params = mixture.parameters(N, K)
    truth = mixture.enumerated_loss(params, x, y, K)
    covered = AssignmentELBO({"z": IndependentRouter()}, num_particles=K)
    loss = jax.jit(lambda p: covered.loss(jax.random.key(0), p, mixture.model, mixture.guide, x, y, K))(params)
    np.testing.assert_allclose(loss, truth, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_variance_is_at_most_half_of_trace_graph(scale):
    """Lines that are latent too, 64 datapoints, 4 experts, 4 particles; 500 draws, so that a ratio is within 10%."""
    n, k = 64, 4
    args = (*mixture.data(n, k), k, 0.1)
    params = mixture.parameters(n, k, scale)

    def variance(elbo):
        return float(jnp.sum(jnp.var(mixture.gradients(elbo, params, args, 500), axis=0)))

    ours = variance(AssignmentELBO({"z": IndependentRouter()}, num_particles=4))
    assert ours < 0.5 * variance(TraceGraph_ELBO(num_particles=4))


def shifted_model():
    shift = numpyro.sample("shift", dist.Normal(0, 1))
    with numpyro.plate("data", 3):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(3) / 3))
        numpyro.sample("y", dist.Normal(z + shift, 1), obs=jnp.array([4.0, 5.0, 6.0]))


def shifted_guide():
    shift = numpyro.sample("shift", dist.Normal(numpyro.param("loc", 0.0), 1))
    with numpyro.plate("data", 3):
        numpyro.sample("z", dist.Categorical(logits=jnp.stack([shift, -2 * shift, 0])))


def mean_and_its_variance(elbo, draws=100_000):
    grad = jax.grad(lambda p, key: elbo.loss(key, p, shifted_model, shifted_guide))
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = np.asarray(jax.jit(jax.vmap(grad, (None, 0)))({"loc": jnp.array(0.3)}, keys)["loc"], np.float64)
    return drawn.mean(), drawn.var() / draws


@pytest.fixture(scope="module")
def of_trace_graph():
    return mean_and_its_variance(TraceGraph_ELBO(2))


@pytest.mark.slow
@pytest.mark.parametrize("covered", [False, SLOWLY(True)])
def test_particles_are_independent_where_logits_depend_on_another_latent_site(covered, monkeypatch, of_trace_graph):
    """Covering the probable experts would be biased there, as one particle's baseline would know another's role."""
    if covered:
        monkeypatch.setattr(_assignment_elbo, "shareable", lambda *_: frozenset("z"))
    ours, theirs = mean_and_its_variance(AssignmentELBO({"z": IndependentRouter()}, 2)), of_trace_graph
    z = abs(ours[0] - theirs[0]) / np.sqrt(ours[1] + theirs[1])
    assert (z > randomness.z_limit(1)) == covered


@pytest.mark.slow
def test_one_particle_after_the_other_gives_the_same():
    x, y = mixture.data(N, K)
    params = mixture.parameters(N, K)
    losses = [
        jax.jit(lambda p, elbo=elbo: elbo.loss(jax.random.key(0), p, mixture.model, mixture.guide, x, y, K))(params)
        for elbo in (
            AssignmentELBO({"z": SkipRouter(4)}, num_particles=3, vectorize_particles=at_once)
            for at_once in (True, False)
        )
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.slow
def test_svi_finds_the_lines():
    x, y = mixture.data(64, 2, seed=3)
    elbo = AssignmentELBO({"z": SkipRouter(32)}, num_particles=4)
    svi = SVI(mixture.model, mixture.guide, numpyro.optim.Adam(0.05), loss=elbo)
    start = {"lines": jnp.array([[1.0, 1.0], [-1.0, -1.0]]), "logits": jnp.zeros((64, 2))}
    result = svi.run(jax.random.key(0), 600, x, y, 2, progress_bar=False, init_params=start)
    params = result.params
    fitted = params["lines"][params["logits"].argmax(axis=1)]
    assert jnp.sqrt(jnp.mean((fitted[:, 0] + fitted[:, 1] * x - y) ** 2)) < 0.4  # the noise is 0.3


@pytest.mark.parametrize("dim", [-1, SLOWLY(-2)])
def test_plates_scales_and_inner_plates(dim):
    """A subsampled plate of datapoints, any axis, and two observations of each: all terms scaled alike."""
    y = jnp.arange(12.0).reshape(6, 2) / 4
    loc, logits = jnp.array([0.0, 2.0]), jnp.stack([jnp.zeros(6), jnp.arange(6.0) / 3], axis=1)

    def model():
        data = numpyro.plate("data", 12, subsample_size=6, dim=dim)
        with data:
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        with data, numpyro.plate("twice", 2, dim=-3 - dim):
            numpyro.sample("y", dist.Normal(loc[z], 1), obs=y if dim == -2 else y.T)

    def guide():
        with numpyro.plate("data", 12, subsample_size=6, dim=dim):
            table = numpyro.param("logits", logits)
            numpyro.sample("z", dist.Categorical(logits=table if dim == -1 else table[:, None]))

    def enumerated(params):
        log_q = jax.nn.log_softmax(params["logits"], axis=1)
        f = jnp.log(jnp.array([0.3, 0.7])) - log_q - jnp.sum((y[:, :, None] - loc) ** 2 / 2, axis=1)
        return -2 * jnp.sum(jnp.exp(log_q) * f) + 2 * 12 * jnp.log(2 * jnp.pi) / 2

    elbo = AssignmentELBO({"z": IndependentRouter()}, num_particles=2)  # as many as experts: exact
    loss = jax.jit(jax.value_and_grad(lambda p: elbo.loss(jax.random.key(0), p, model, guide)))
    value, gradient = loss({"logits": logits})
    truth, slope = jax.jit(jax.value_and_grad(enumerated))({"logits": logits})
    np.testing.assert_allclose(value, truth, rtol=1e-5)
    np.testing.assert_allclose(gradient["logits"], slope["logits"], rtol=1e-4, atol=1e-5)


def subsampled_z(elbo, draws=20_000):
    """Largest z-score and its limit where particles see two of six datapoints, each with logits and data of its own."""
    y, loc, prior = jnp.array([0.0, 1.0, 2.0, -1.0, 3.0, 0.5]), jnp.arange(3.0), jnp.array([0.2, 0.3, 0.5])
    params = {"logits": 1.5 * jax.random.normal(jax.random.key(5), (6, 3))}

    def model():
        with numpyro.plate("data", 6, subsample_size=2) as index:
            z = numpyro.sample("z", dist.Categorical(prior))
            numpyro.sample("y", dist.Normal(loc[z], 0.7), obs=y[index])

    def guide():
        table = numpyro.param("logits", params["logits"])
        with numpyro.plate("data", 6, subsample_size=2) as index:
            numpyro.sample("z", dist.Categorical(logits=table[index]))

    def enumerated(params):
        log_q = jax.nn.log_softmax(params["logits"], axis=1)
        return -jnp.sum(jnp.exp(log_q) * (jnp.log(prior) + dist.Normal(loc, 0.7).log_prob(y[:, None]) - log_q))

    gradient = jax.grad(lambda params, key: elbo.loss(key, params, model, guide))
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = jax.jit(lambda keys: jax.lax.map(partial(gradient, params), keys, batch_size=2000))(keys)["logits"]
    return randomness.largest_z(drawn, jax.jit(jax.grad(enumerated))(params)["logits"])


@pytest.mark.slow
def test_gradient_is_unbiased_where_particles_see_other_datapoints(monkeypatch):
    """Then particles cannot be shared out: the baseline of a datapoint would come from others, and is rejected."""
    for router in (IndependentRouter(), SkipRouter(1)):
        z, limit = subsampled_z(AssignmentELBO({"z": router}, num_particles=2))
        assert z < limit
    monkeypatch.setattr(_assignment_elbo, "shareable", lambda *_: frozenset({"z"}))
    z, limit = subsampled_z(AssignmentELBO({"z": IndependentRouter()}, num_particles=2))
    assert z > limit


def test_forbidden_experts_and_useless_costs_of_the_skipped_do_no_harm():
    logits = jnp.array([[0.0, -jnp.inf], [0.0, 1.0], [2.0, 0.0]])

    def model():
        with numpyro.plate("data", 3):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
            numpyro.sample("y", dist.Normal(z, 1), obs=jnp.zeros(3))

    def guide():
        table = numpyro.param("logits", logits)
        with numpyro.plate("data", 3):
            numpyro.sample("z", dist.Categorical(logits=table, validate_args=False))

    for router in (IndependentRouter(), SkipRouter(1)):
        elbo = AssignmentELBO({"z": router}, num_particles=2)
        loss = jax.jit(jax.value_and_grad(lambda p, elbo=elbo: elbo.loss(jax.random.key(0), p, model, guide)))
        value, gradient = loss({"logits": logits})
        assert jnp.isfinite(value)
        assert jnp.isfinite(gradient["logits"]).all()


def refused(model, guide, routers=None):
    elbo = AssignmentELBO(routers or {"z": SkipRouter(2)}, num_particles=2)
    jax.eval_shape(lambda: elbo.loss(jax.random.key(0), {}, model, guide))


def simple_guide():
    with numpyro.plate("data", 4):
        numpyro.sample("z", dist.Categorical(logits=jnp.zeros((4, 2))))


def simple_model(outside=False):
    with numpyro.plate("data", 4):
        z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
        if not outside:
            numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.zeros(4))
    if outside:
        numpyro.sample("y", dist.Normal(jnp.sum(z), 1.0), obs=0.0)


def test_a_likelihood_outside_the_plate_is_refused():
    refused(simple_model, simple_guide)
    with pytest.raises(ValueError, match="site 'y' depends on the routed site 'z' but is outside its plate 'data'"):
        refused(lambda: simple_model(outside=True), simple_guide)


def test_a_site_that_is_no_categorical_is_refused():
    def guide():
        with numpyro.plate("data", 4):
            numpyro.sample("z", dist.Bernoulli(0.5))

    with pytest.raises(TypeError, match="site 'z' must be a Categorical in the guide, got BernoulliProbs"):
        refused(simple_model, guide)


def test_sites_without_one_plate_are_refused():
    def no_plate():
        numpyro.sample("z", dist.Categorical(logits=jnp.zeros((4, 2))).to_event(0))

    def two_plates():
        with numpyro.plate("data", 4), numpyro.plate("more", 3):
            numpyro.sample("z", dist.Categorical(logits=jnp.zeros((3, 4, 2))))

    for guide, plates in ((no_plate, r"\[\]"), (two_plates, r"\['more', 'data'\]|\['data', 'more'\]")):
        with pytest.raises(ValueError, match=f"site 'z' must be in exactly one plate of the guide.*{plates}"):
            refused(simple_model, guide)


def test_unknown_observed_and_other_discrete_sites_are_refused():
    with pytest.raises(ValueError, match=r"routers has a site 'a' that the guide does not draw; it draws \['z'\]"):
        refused(simple_model, simple_guide, {"a": SkipRouter(2)})

    def with_another():
        numpyro.sample("extra", dist.Bernoulli(0.5))

    with pytest.raises(ValueError, match="latent site 'extra' has no reparameterised sampler"):
        refused(lambda: (with_another(), simple_model()), lambda: (with_another(), simple_guide()))


def test_terms_of_two_routed_sites_are_refused():
    def guide():
        with numpyro.plate("data", 4):
            for name in "ab":
                numpyro.sample(name, dist.Categorical(logits=jnp.zeros((4, 2))))

    def model(joint):
        with numpyro.plate("data", 4):
            a, b = (numpyro.sample(name, dist.Categorical(jnp.ones(2) / 2)) for name in "ab")
            numpyro.sample("y", dist.Normal(a + b if joint else a, 1.0), obs=jnp.zeros(4))

    routers = {"a": SkipRouter(2), "b": GumbelMatchingRouter(2)}
    refused(lambda: model(False), guide, routers)
    with pytest.raises(ValueError, match=r"site 'y' depends on several routed sites, \['a', 'b'\]"):
        refused(lambda: model(True), guide, routers)


def test_routers_are_checked():
    with pytest.raises(ValueError, match="routers must name at least one"):
        AssignmentELBO({})
    with pytest.raises(TypeError, match="the router of site 'z' must be callable, got 3"):
        AssignmentELBO({"z": 3})
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        AssignmentELBO({"z": SkipRouter(2)}, num_particles=0)
    with pytest.raises(TypeError, match="the router of site 'z' must return a Routing, got ExpertChoiceRouting"):
        refused(simple_model, simple_guide, {"z": lambda key, logits: ExpertChoiceRouter(2)(key, logits)})


@pytest.mark.parametrize("name", [name for name, entry in ROUTERS.items() if entry.kind != "weighted"])
def test_the_elbo_takes_biased_routers_only_when_told_so(name):
    router = make_router(name, 2)
    with pytest.raises(ValueError, match="the router of site 'z' has no correction weights"):
        AssignmentELBO({"z": router})
    with pytest.raises(ValueError, match="has no correction weights"):
        AssignmentELBO({"z": as_one_batch(router)})
    assert AssignmentELBO({"z": router}, allow_biased=True).routers == {"z": router}
