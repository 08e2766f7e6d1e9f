"""Log-probabilities do not depend on the precision that an accelerator has for products by default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from gumbel_moe.distributions._log_prob_in_jax import Precision, estimate_many
from tests.precision import BFLOAT16, TF32, default_products, with_mantissa


def problem(cls, k):
    logits = 2 * jax.random.normal(jax.random.key(k), (4 * k, k))
    return logits, cls(logits, 4).sample(jax.random.key(1))


def in_jax(logits, value):
    """The estimate as an accelerator computes it."""
    k = logits.shape[1]
    rest = (value[None], jnp.ones((1, len(value)), bool), jnp.full((1, k), 4))
    return [x[0] for x in estimate_many(logits[None], *rest, jax.random.key(0)[None], Precision(512))]


@pytest.mark.parametrize("k", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cls", [SkipAssignment, GumbelMatching])
def test_all_products_ask_for_precision(cls, k):
    logits, value = problem(cls, k)
    assert default_products(jax.grad(lambda logits: cls(logits, 4).log_prob(value)), logits) == 0
    if cls is GumbelMatching:
        assert default_products(jax.grad(lambda logits: in_jax(logits, value)[0]), logits) == 0


@pytest.mark.slow
@pytest.mark.parametrize("bits", [TF32, BFLOAT16])
def test_values_and_errors(bits):
    for k in (2, 3, 5):
        logits, value = problem(GumbelMatching, k)

        def estimate(logits, value=value):
            return in_jax(logits, value)

        found, expected = jax.jit(with_mantissa(estimate, bits))(logits), estimate(logits)
        np.testing.assert_allclose(found[0], expected[0], atol=2e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=0.01, atol=1e-6)


def test_emulation_changes_what_does_not_ask():
    """A wrong variant: the same sum of log-probabilities as a product of default precision."""
    logits, value = problem(SkipAssignment, 3)
    chosen = jnp.eye(3)[jnp.where(value < 0, ~value, value)]

    def own(logits):
        return jnp.einsum("ij,ij->", jax.nn.log_softmax(logits), chosen)

    assert default_products(own, logits) == 1
    assert abs(with_mantissa(own, BFLOAT16)(logits) - own(logits)) > 1e-4
