"""An assignment beside a site that NumPyro enumerates with funsor: what works, and what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, HMCGibbs, TraceEnum_ELBO, TraceGraph_ELBO
from numpyro.infer.autoguide import AutoGuideList, AutoNormal

from gumbel_moe.distributions import SkipAssignment
from gumbel_moe.mcmc import swap_and_move
from tests.randomness import z_limit

Y = jnp.array([-1.0, 0.5, 1.0, 2.0])
LOGITS = jnp.array([[0.0, 1.0], [0.5, -0.5], [-1.0, 1.0], [2.0, 0.0]])
FLIP = jnp.array([0.3, 0.7])
Z = jnp.array([0, 1, 1, 0])
SIGNS = ((0, -1.0), (1, 1.0))


def model():
    loc = numpyro.sample("loc", dist.Normal(0, 1))
    flip = numpyro.sample("flip", dist.Categorical(FLIP), infer={"enumerate": "parallel"})
    z = numpyro.sample("z", SkipAssignment(LOGITS, 2))
    with numpyro.plate("data", 4):
        numpyro.sample("y", dist.Normal(loc + jnp.where(flip == 0, -1.0, 1.0) * jnp.where(z < 0, ~z, z), 1.0), obs=Y)


REFUSED = pytest.raises(ValueError, match=r"has none of \['flip'\]: an enumerated site must be summed out")


def test_an_update_beside_an_enumerated_site_is_refused():
    with REFUSED:
        swap_and_move(model, "z")(jax.random.key(0), {"z": Z}, {"loc": jnp.array(0.3)})


@pytest.mark.slow
def test_gibbs_beside_an_enumerated_site_is_refused():
    kernel = HMCGibbs(NUTS(model), gibbs_fn=swap_and_move(model, "z"), gibbs_sites=["z"])
    with REFUSED:
        MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False).run(jax.random.key(0))


def test_infer_discrete_leaves_the_assignment_and_draws_the_other():
    """5,000 draws of the flip given all else, whose odds are those of the two densities. False-fail rate 1e-6."""
    from numpyro.contrib.funsor import infer_discrete

    given = handlers.substitute(model, {"z": Z, "loc": jnp.array(0.3)})

    def draw(key):
        sites = handlers.trace(infer_discrete(handlers.seed(given, 0), -2, rng_key=key)).get_trace()
        return sites["flip"]["value"], sites["z"]["value"]

    flips, z = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), 5000))
    assert (z == Z).all()
    shifts = 0.3 + jnp.array([[-1.0], [1.0]]) * Z
    odds = jax.nn.softmax(jnp.log(FLIP) + dist.Normal(shifts, 1.0).log_prob(Y).sum(axis=1))
    error = np.sqrt(odds[0] * odds[1] / 5000)
    assert abs(flips.mean() - odds[1]) < 4.9 * error
    assert abs(flips.mean() - FLIP[1]) > 4.9 * error  # the prior is rejected


def guide():
    numpyro.sample("z", SkipAssignment(numpyro.param("logits", LOGITS), 2))


def test_an_automatic_guide_of_the_whole_model_is_refused():
    def without_flip():
        return handlers.condition(model, {"flip": jnp.array(1)})()

    guides = AutoGuideList(without_flip)
    guides.append(AutoNormal(handlers.block(without_flip, hide=["z"])))
    guides.append(guide)
    svi = SVI(without_flip, guides, numpyro.optim.Adam(0.1), TraceGraph_ELBO())
    with pytest.raises(RuntimeError, match="SkipAssignment distribution at site z does not have enumerate support"):
        svi.init(jax.random.key(0))


@pytest.mark.slow
def test_trace_enum_elbo_is_unbiased_beside_an_enumerated_site():
    """10,000 values and gradients against enumeration of both sites; that of `Trace_ELBO`, about 0, is rejected."""
    given = handlers.condition(model, {"loc": jnp.array(0.3)})
    values = jnp.array(list(itertools.product(range(-2, 2), repeat=4)))
    values = values[SkipAssignment(LOGITS, 2).support(values)]
    expert = jnp.where(values < 0, ~values, values)
    likelihood = [jnp.log(FLIP[f]) + dist.Normal(0.3 + s * expert, 1.0).log_prob(Y).sum(axis=1) for f, s in SIGNS]
    log_p = SkipAssignment(LOGITS, 2).log_prob(values) + jnp.logaddexp(*likelihood) + dist.Normal(0, 1).log_prob(0.3)

    def enumerated(logits):
        log_q = SkipAssignment(logits, 2).log_prob(values)
        return -jnp.sum(jnp.exp(log_q) * (log_p - log_q))

    elbo, logits = TraceEnum_ELBO(max_plate_nesting=1), 0.5 * LOGITS
    loss = jax.value_and_grad(lambda logits, key: elbo.loss(key, {"logits": logits}, given, guide))
    keys = jax.random.split(jax.random.key(0), 10_000)
    value, gradient = jax.jit(lambda keys: jax.lax.map(lambda key: loss(logits, key), keys, batch_size=1000))(keys)
    drawn = np.column_stack([value, gradient.reshape(10_000, -1)]).astype(np.float64)
    truth, slope = jax.value_and_grad(enumerated)(logits)
    exact = np.append(truth, slope)
    error, limit = drawn.std(axis=0) / 100, z_limit(9)
    assert (np.abs(drawn.mean(axis=0) - exact) / error).max() < limit
    assert (np.abs(exact[1:]) / error[1:]).max() > limit
