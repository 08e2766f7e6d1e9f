"""The wines and their two models: data, densities by hand, and the mixture as a sum over all memberships."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.handlers import seed, trace
from numpyro.infer.util import log_density
from scipy import stats
from sklearn.datasets import load_wine

from gumbel_moe.distributions import UniformAssignment
from gumbel_moe.mcmc import without_prior
from models.balanced_regression import Lines, balanced, log_likelihoods, mixture
from models.data import RESPONSES, load_wines

KEYS = jax.random.split(jax.random.key(0), 3)
SHAPE = (3, len(RESPONSES))
LINES = Lines(
    jax.random.normal(KEYS[0], SHAPE), jax.random.normal(KEYS[1], SHAPE), jnp.exp(jax.random.normal(KEYS[2], SHAPE) / 2)
)


def priors():
    intercept, slope, noise = (np.asarray(x, np.float64) for x in LINES)
    lines = stats.norm.logpdf(intercept).sum() + stats.norm.logpdf(slope).sum()
    return lines + stats.lognorm.logpdf(noise, 0.5, scale=np.exp(-0.7)).sum()


def likelihood(x, y, group):
    intercept, slope, noise = (np.asarray(x, np.float64)[np.asarray(group)] for x in LINES)
    return stats.norm.logpdf(np.asarray(y), intercept + slope * np.asarray(x)[:, None], noise).sum()


def test_every_wine_once_and_standardised():
    wines = load_wines(seed=3)
    assert wines.sizes == (51, 63, 40)
    np.testing.assert_array_equal(np.bincount(wines.label), [8, 8, 8])
    bunch = load_wine()
    phenols = np.concatenate([wines.labelled_x, wines.x])
    np.testing.assert_allclose([phenols.mean(), phenols.std()], [0, 1], atol=1e-5)
    raw = bunch.data[:, bunch.feature_names.index("total_phenols")]
    np.testing.assert_allclose(np.sort(phenols), np.sort((raw - raw.mean()) / raw.std()), rtol=1e-4, atol=1e-6)
    cultivars = np.concatenate([wines.label, wines.truth])
    proline = np.concatenate([wines.labelled_y, wines.y])[:, RESPONSES.index("proline")]
    spread, shift = bunch.data[:, -1].std(), bunch.data[:, -1].mean()
    for group in range(3):
        theirs = np.sort(bunch.data[bunch.target == group, -1])
        np.testing.assert_allclose(np.sort(proline[cultivars == group]) * spread + shift, theirs, rtol=1e-4)


def test_labels_follow_the_seed_and_a_part_can_be_taken():
    first, again, other = load_wines(0), load_wines(0), load_wines(1)
    assert jnp.array_equal(first.labelled_x, again.labelled_x)
    assert not jnp.array_equal(first.labelled_x, other.labelled_x)
    part = load_wines(0, labelled=2, every=4)
    assert part.labelled_y.shape == (6, 3)
    assert len(part.x) == sum(part.sizes) == 43


def test_balanced_density_by_hand():
    wines = load_wines(0, every=4)
    z = jnp.asarray(np.random.default_rng(0).permutation(wines.truth))
    value, _ = log_density(without_prior(balanced, "z"), (wines,), {}, {**LINES._asdict(), "z": z})
    expected = priors() + likelihood(wines.labelled_x, wines.labelled_y, wines.label) + likelihood(wines.x, wines.y, z)
    np.testing.assert_allclose(value, expected, rtol=2e-4)


def test_balanced_prior_knows_the_sizes_and_nothing_else():
    wines = load_wines(0, every=4)
    prior = trace(seed(balanced, 0)).get_trace(wines)["z"]
    assert isinstance(prior["fn"], UniformAssignment)
    assert prior["fn"].num_datapoints == len(wines.x) == sum(wines.sizes)
    np.testing.assert_array_equal(prior["fn"].capacity, wines.sizes)
    np.testing.assert_array_equal(np.bincount(prior["value"]), wines.sizes)


@pytest.mark.parametrize("known", [False, True])
def test_mixture_sums_over_memberships(known):
    """3 ** 3 of them, for three wines."""
    wines = load_wines(0, every=60)
    assert len(wines.x) == 3
    share = np.array([0.2, 0.5, 0.3])
    values = LINES._asdict() if known else {**LINES._asdict(), "share": jnp.asarray(share)}
    value, _ = log_density(mixture, (wines,), {"known_shares": known}, values)
    weight = np.asarray(wines.sizes) / 3 if known else share
    terms = [
        np.log(np.maximum(weight[list(z)], 1e-300)).sum() + likelihood(wines.x, wines.y, z)
        for z in itertools.product(range(3), repeat=3)
    ]
    expected = priors() + likelihood(wines.labelled_x, wines.labelled_y, wines.label) + np.logaddexp.reduce(terms)
    if not known:
        expected += dist.Dirichlet(jnp.ones(3)).log_prob(share)
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_log_likelihoods():
    wines = load_wines(0, every=30)
    table = log_likelihoods(LINES, wines)
    for i, j in itertools.product(range(len(wines.x)), range(3)):
        np.testing.assert_allclose(table[i, j], likelihood(wines.x[i : i + 1], wines.y[i : i + 1], [j]), rtol=1e-4)
