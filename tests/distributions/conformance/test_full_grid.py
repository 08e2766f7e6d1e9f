"""GumbelMatching compiled at every batch shape and number of experts: minutes, so not part of the default run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching
from tests.distributions.conformance.cases import (
    BATCH_SHAPES,
    CAPACITIES,
    KEY,
    NUM_EXPERTS,
    VALUE,
    num_datapoints,
    problem,
    shared,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("k", NUM_EXPERTS)
@pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
def test_batches_are_their_rows(batch_shape, k):
    """`log_prob` of a batch, jitted with the distribution as argument, against `vmap` over its rows and capacities.

    For five experts both draw the same price vectors around a mode that rounding moves: equal within the stated error.
    """
    batched = jax.jit(lambda d, value: d.log_prob_with_error(value))
    row = jax.jit(jax.vmap(lambda a, c, z: GumbelMatching(a, c).log_prob(z)))
    for kind in CAPACITIES:
        d = problem(GumbelMatching, batch_shape, k, kind)
        value = d.sample(KEY)
        actual, error = batched(d, value)
        flat = d.logits.reshape(-1, *d.logits.shape[-2:]), value.reshape(-1, num_datapoints(k))
        expected = row(flat[0], np.broadcast_to(d.capacity.reshape(k), (len(flat[0]), k)), flat[1])
        tolerance = np.maximum(error, 1e-4) if k > 3 else 1e-4
        assert (np.abs(actual - expected.reshape(batch_shape)) <= tolerance).all()


@pytest.mark.parametrize("k", NUM_EXPERTS)
def test_gradients(k):
    """Through the distribution as a pytree, against the logits alone; rows sum to zero."""
    d = problem(GumbelMatching, (3,), k, "vector with free places")
    value = d.sample(KEY)
    whole = jax.grad(lambda d: d.log_prob(value).sum(), allow_int=True)(d)
    alone = jax.grad(lambda a: GumbelMatching(a, d.capacity).log_prob(value).sum())(d.logits)
    np.testing.assert_allclose(whole.logits, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.logits.sum(axis=-1), np.zeros((3, num_datapoints(k))), atol=1e-4)


def test_entropy():
    d = shared(GumbelMatching)
    entropy = d.entropy()
    assert entropy.shape == (3,)
    np.testing.assert_allclose(d.expand((5, 3)).entropy(), jnp.broadcast_to(entropy, (5, 3)), rtol=1e-5)
    np.testing.assert_allclose(d.to_event(1).entropy(), entropy.sum(), rtol=1e-5)
    assert (entropy < np.log(6)).all()  # six matchings


def test_float64():
    with jax.enable_x64(True):
        d = GumbelMatching(jnp.asarray(shared(GumbelMatching).logits, float), 2)
        log_prob = d.log_prob(VALUE)
        assert (d.sample(KEY).dtype, log_prob.dtype) == (jnp.int32, jnp.float64)
        np.testing.assert_allclose(log_prob, shared(GumbelMatching).log_prob(VALUE), rtol=1e-5)
