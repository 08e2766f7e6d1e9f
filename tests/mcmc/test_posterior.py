"""HMCGibbs with `swap_and_move` and NUTS against an enumerated posterior, and what it refuses."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_base import from_dict
from arviz_stats import summary
from numpyro import handlers
from numpyro.infer import HMC, MCMC, NUTS, SVI, DiscreteHMCGibbs, HMCGibbs, MixedHMC, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

from gumbel_moe.distributions import (
    GumbelMatching,
    SkipAssignment,
    UniformAssignment,
    enumerate_assignments,
    outcome_probabilities,
)
from gumbel_moe.mcmc import swap_and_move, without_prior

N, K = 6, 3
LOGITS = jax.random.normal(jax.random.key(3), (N, K))
Y = jnp.array([-1.5, -1.0, 0.2, 0.4, 1.5, 2.5])
NOISE, SPREAD = 1.0, 1.5
Z = jnp.array([0, 0, 1, 1, 2, 2])


def model(logits=LOGITS, cls=GumbelMatching, capacity=2):
    with numpyro.plate("experts", logits.shape[1]):
        loc = numpyro.sample("loc", dist.Normal(0, SPREAD))
    if cls is UniformAssignment:
        prior = cls(N, (capacity,) * logits.shape[1], validate_args=False)
    else:
        prior = cls(logits, capacity, validate_args=False)
    z = numpyro.sample("z", prior)
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(loc[jnp.where(z < 0, -1 - z, z)], NOISE), obs=Y)


def enumerated(prior):
    """All assignments, and their posterior probabilities: the locations integrate out in closed form."""
    values = np.asarray(enumerate_assignments(N, 2, K))
    log_prob = np.log(prior)
    for j in range(K):
        member = values == j
        number, total = member.sum(axis=1), (member * np.asarray(Y)).sum(axis=1)
        precision = 1 / SPREAD**2 + number / NOISE**2
        log_prob += (total / NOISE**2) ** 2 / precision / 2 - np.log(precision) / 2
    return values, np.exp(log_prob - log_prob.max()) / np.exp(log_prob - log_prob.max()).sum()


def sample(logits, draws, chains, num_rounds):
    update = swap_and_move(model, "z", (logits,), num_rounds=num_rounds)
    kernel = HMCGibbs(NUTS(without_prior(model, "z")), gibbs_fn=update, gibbs_sites=["z"])
    mcmc = MCMC(
        kernel,
        num_warmup=200,
        num_samples=draws,
        num_chains=chains,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), logits)
    return mcmc.get_samples(group_by_chain=True)


def total_variation(draws, values, probs):
    index = {tuple(v): i for i, v in enumerate(values.tolist())}
    counts = np.bincount([index[tuple(v)] for v in draws.reshape(-1, N).tolist()], minlength=len(probs))
    return np.abs(counts / counts.sum() - probs).sum() / 2


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["equal", "random"])
def test_posterior(prior):
    """50,000 draws over 90 outcomes. By chance alone independent ones would be off by about 0.01 in total variation."""
    draws, chains, limit = 5_000, 10, 0.02
    logits = LOGITS if prior == "random" else jnp.zeros((N, K))
    priors = np.asarray(outcome_probabilities(logits, 2), np.float64)
    samples = sample(logits, draws, chains, num_rounds=1 if prior == "random" else 4)
    values, probs = enumerated(priors)
    assert total_variation(np.asarray(samples["z"]), values, probs) < limit
    # The prior, and the posterior of another prior, are farther off.
    other = enumerated(np.asarray(outcome_probabilities(LOGITS - logits, 2), np.float64))[1]
    for wrong in (priors, other):
        assert np.abs(probs - wrong).sum() / 2 > 4 * limit
    table = summary(from_dict({"posterior": {name: np.asarray(x) for name, x in samples.items()}}), round_to="none")
    assert (table["r_hat"].dropna() < 1.01).all()
    assert (table["ess_bulk"].dropna() > 0.05 * draws * chains).all()


@pytest.mark.parametrize("cls", [GumbelMatching, SkipAssignment, UniformAssignment])
def test_samplers_of_single_discrete_sites_are_refused(cls):
    """They would need the support of each datapoint by itself; none of them may run without moving."""
    for kernel in (DiscreteHMCGibbs(NUTS(model)), DiscreteHMCGibbs(NUTS(model), modified=True), MixedHMC(HMC(model))):
        mcmc = MCMC(kernel, num_warmup=2, num_samples=2, progress_bar=False)
        with pytest.raises(ValueError, match=r"owns no sites|Cannot detect any discrete latent variables"):
            mcmc.run(jax.random.key(0), cls=cls)
    with pytest.raises(RuntimeError, match=f"{cls.__name__} distribution at site z does not have enumerate support"):
        MCMC(NUTS(model), num_warmup=2, num_samples=2, progress_bar=False).run(jax.random.key(0), cls=cls)
    with pytest.raises(RuntimeError, match=f"{cls.__name__} distribution at site z does not have enumerate support"):
        SVI(model, AutoNormal(model), numpyro.optim.Adam(0.1), Trace_ELBO()).init(jax.random.key(0), cls=cls)


@pytest.mark.slow
def test_chains_can_be_pickled():
    update = swap_and_move(model, "z", (LOGITS,), {"cls": SkipAssignment}, num_steps=2)
    kernel = HMCGibbs(NUTS(without_prior(model, "z")), gibbs_fn=update, gibbs_sites=["z"])
    mcmc = MCMC(kernel, num_warmup=1, num_samples=2, progress_bar=False)
    mcmc.run(jax.random.key(0), LOGITS, SkipAssignment)
    again = pickle.loads(pickle.dumps(mcmc))
    for name, drawn in mcmc.get_samples().items():
        np.testing.assert_array_equal(again.get_samples()[name], drawn)
    z, loc = {"z": jnp.array([0, 0, 1, 1, 2, 2])}, {"loc": jnp.array([-1.0, 0.0, 1.0])}
    copied = pickle.loads(pickle.dumps(update))
    np.testing.assert_array_equal(copied(jax.random.key(1), z, loc)["z"], update(jax.random.key(1), z, loc)["z"])


def test_bad_arguments():
    for name in ("num_steps", "num_rounds"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            swap_and_move(model, "z", **{name: 0})
    z, loc = jnp.array([0, 0, 1, 1, 2, 2]), {"loc": jnp.zeros(K)}
    with pytest.raises(ValueError, match=r"site 'a' must be among gibbs_sites, got \['z'\]"):
        swap_and_move(model, "a")(jax.random.key(0), {"z": z}, loc)
    with pytest.raises(ValueError, match=r"site 'a' is not drawn by the model; it draws \['loc', 'z'\]"):
        swap_and_move(model, "a")(jax.random.key(0), {"a": z, "z": z}, loc)
    with pytest.raises(
        TypeError, match="site 'loc' must be a GumbelMatching, SkipAssignment or UniformAssignment, got Normal"
    ):
        swap_and_move(model, "loc")(jax.random.key(0), {"loc": jnp.zeros(K)}, {"z": z})

    def batch():
        numpyro.sample("z", GumbelMatching(jnp.zeros((2, 6, 3)), 2))

    with pytest.raises(ValueError, match=r"site 'z' must be one assignment, got batch shape \(2,\)"):
        swap_and_move(batch, "z")(jax.random.key(0), {"z": jnp.stack([z, z])}, {})

    def padded():
        numpyro.sample("z", SkipAssignment(LOGITS, 2, mask=jnp.arange(N) < 5))

    with pytest.raises(ValueError, match="site 'z' has a mask, which swap_and_move does not support"):
        swap_and_move(padded, "z")(jax.random.key(0), {"z": z.at[5].set(K)}, {})


def test_without_prior_leaves_the_rest_of_the_density():
    z, loc = jnp.array([0, 0, 1, 1, 2, 2]), jnp.array([-1.0, 0.0, 1.0])
    whole, sites = log_density(model, (), {}, {"loc": loc, "z": z})
    rest, _ = log_density(without_prior(model, "z"), (), {}, {"loc": loc, "z": z})
    np.testing.assert_allclose(rest, whole - sites["z"]["fn"].log_prob(z), rtol=1e-6)


def test_without_prior_refuses_logits_that_depend_on_other_sites():
    def dependent():
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        numpyro.sample("z", SkipAssignment(slope * LOGITS, 2))

    with pytest.raises(ValueError, match=r"logits of site 'z' depend on the latent sites \['slope'\]: keep its prior"):
        handlers.seed(without_prior(dependent, "z"), 0)()
    with pytest.raises(TypeError, match="site 'slope' must be a GumbelMatching"):
        handlers.seed(without_prior(dependent, "slope"), 0)()


def test_without_prior_refuses_capacities_of_a_uniform_assignment_that_depend_on_other_sites():
    def sizes_unknown():
        first = numpyro.sample("first", dist.Binomial(N, 0.5))
        numpyro.sample("z", UniformAssignment(N, jnp.stack([first + 1, N + 1 - first]).astype(int)))

    with pytest.raises(
        ValueError, match=r"capacity of site 'z' depends on the latent sites \['first'\]: keep its prior"
    ):
        handlers.seed(without_prior(sizes_unknown, "z"), 0)()
    rest, _ = log_density(without_prior(model, "z"), (LOGITS, UniformAssignment), {}, {"loc": jnp.zeros(K), "z": Z})
    whole, _ = log_density(model, (LOGITS, UniformAssignment), {}, {"loc": jnp.zeros(K), "z": Z})
    np.testing.assert_allclose(whole - rest, -np.log(90), rtol=1e-5)
