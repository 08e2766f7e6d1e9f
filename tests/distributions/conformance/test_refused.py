"""What the distributions do not have is refused, as by NumPyro's own distributions that lack it."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from tests.distributions.conformance.cases import ALL, KEY, VALUE, shared

LIKE = dist.Dirichlet(jnp.ones((3, 4)))  # a NumPyro distribution over vectors, with a batch


@ALL
def test_reparametrised_samples(cls):
    d = shared(cls)
    wrapped = [d, d.mask(False), d.expand_by([2]), d.expand_by([2]).to_event(1)]
    wrapped.append(dist.TransformedDistribution(d, dist.biject_to(constraints.real)))
    for each in wrapped:
        assert not each.has_rsample
        with pytest.raises(NotImplementedError):
            each.rsample(KEY)
    assert set(cls.reparametrized_params) == set()


@ALL
def test_enumeration(cls):
    d = shared(cls)
    for each in (d, d.expand((5, 3)), d.to_event(1), d.mask(False)):
        assert not each.has_enumerate_support
    for each in (d, d.expand((5, 3)), d.mask(False)):
        with pytest.raises(NotImplementedError, match=f"{cls.__name__} does not enumerate its support"):
            each.enumerate_support()
        with pytest.raises(NotImplementedError, match="enumerate_assignments"):
            each.enumerate_support(expand=False)


@ALL
@pytest.mark.parametrize("name", ["mean", "variance", "mode"])
def test_moments(cls, name):
    d = shared(cls)
    for each in (d, *([] if name == "mode" else [d.expand((5, 3)), d.to_event(1), d.mask(False)])):
        with pytest.raises(NotImplementedError):
            getattr(each, name)


@ALL
@pytest.mark.parametrize("name", ["cdf", "icdf"])
def test_distribution_functions(cls, name):
    for d in (LIKE, shared(cls)):
        with pytest.raises(NotImplementedError):
            getattr(d, name)(VALUE)


@ALL
def test_divergences(cls):
    d = shared(cls)
    for p, q in [(d, d), (d, LIKE), (LIKE, d), (d.expand((5, 3)), d), (d.to_event(1), d.to_event(1))]:
        with pytest.raises(NotImplementedError):
            dist.kl_divergence(p, q)


@ALL
def test_mixtures_of_unknown_supports(cls):
    """Their components need one support, free of parameters: a traced capacity is one, as a total count always is."""
    mixing = dist.Categorical(jnp.ones(3) / 3)

    def refused(component):
        with pytest.raises(AssertionError, match="support that does not depend on their parameters"):
            dist.MixtureSameFamily(mixing, component)

    refused(dist.Multinomial(3, jnp.ones((3, 4)) / 4))
    refused(shared(cls, [[2, 2], [3, 2], [2, 3]]))
    jax.eval_shape(lambda c: refused(shared(cls, c)), 2)
