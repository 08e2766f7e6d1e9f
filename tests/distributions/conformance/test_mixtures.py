"""NumPyro's mixtures of assignment distributions, whose components have one capacity."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from tests.distributions.conformance.cases import ALL_ONE_SLOW, KEY, LOGITS, VALUE, made, shared

OUTSIDE = np.array([0, 0, 0, 0])
WEIGHTS = jnp.array([0.2, 0.3, 0.5])


@ALL_ONE_SLOW
def test_of_one_family(cls):
    """Log-probabilities by hand; draws in the support; the general mixture agrees."""
    mixing, components = dist.Categorical(WEIGHTS), shared(cls)
    mixture = dist.MixtureSameFamily(mixing, components)
    assert (mixture.batch_shape, mixture.event_shape, mixture.is_discrete) == ((), (4,), True)
    for value in VALUE:
        each = np.asarray(components.log_prob(np.stack([value] * 3)), np.float64)
        expected = np.log(np.sum(np.asarray(WEIGHTS) * np.exp(each)))
        assert float(mixture.log_prob(value)) == pytest.approx(expected, rel=1e-5)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert jnp.isneginf(mixture.log_prob(OUTSIDE))
    drawn = mixture.sample(KEY, (6,))
    assert drawn.shape == (6, 4)
    assert components.support(drawn).all()
    general = dist.MixtureGeneral(mixing, [made(cls, jnp.asarray(a), 2) for a in LOGITS])
    assert general.sample(KEY).shape == (4,)
    nested = dist.MixtureSameFamily(mixing, components.expand((2, 3)))
    assert jax.eval_shape(lambda: nested.sample(KEY)).shape == (2, 4)
