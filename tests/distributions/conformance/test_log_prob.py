"""`log_prob` on a cover of the grid; batches of values against batches of distributions; wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from tests.distributions.conformance.cases import BOTH, COVER, GRID, KEY, LOGITS, VALUE, num_datapoints, problem, shared


def check_draw(cls, batch_shape, k, kind):
    """A draw has a log-probability, and what is outside the support has none."""
    d = problem(cls, batch_shape, k, kind)
    value = d.sample(KEY)
    log_prob = d.log_prob(value)
    assert (value.shape, value.dtype) == ((*batch_shape, num_datapoints(k)), jnp.int32)
    assert (log_prob.shape, log_prob.dtype) == (batch_shape, jnp.float32)
    assert d.support(value).all()
    assert jnp.isfinite(log_prob).all()
    assert (log_prob < 1e-5).all()
    outside = jax.tree.map(lambda x: x, d).log_prob(value.at[..., 0].set(k))  # no validation after a round trip
    assert jnp.isneginf(outside).all()
    if k == 1 and (cls is GumbelMatching or d.capacity[0] >= num_datapoints(k)):
        np.testing.assert_allclose(log_prob, 0, atol=1e-6)  # one expert, nobody skipped: certain
    return d, value, log_prob


@pytest.mark.parametrize(("batch_shape", "k", "kind"), COVER)
def test_gumbel_matching(batch_shape, k, kind):
    check_draw(GumbelMatching, batch_shape, k, kind)


@pytest.mark.parametrize(("batch_shape", "k", "kind"), GRID)
def test_skip(batch_shape, k, kind):
    d, value, log_prob = check_draw(SkipAssignment, batch_shape, k, kind)
    flat = d.logits.reshape(-1, *d.logits.shape[-2:]), value.reshape(-1, num_datapoints(k))
    alone = SkipAssignment(flat[0][-1], d.capacity).log_prob(flat[1][-1])
    np.testing.assert_allclose(log_prob.reshape(-1)[-1], alone, rtol=1e-5)


@BOTH
def test_values_broadcast_against_the_batch(cls):
    """Of every value the log-probability under every distribution that it meets."""
    d = shared(cls, validate_args=False)
    pairs = jnp.stack([jnp.asarray(VALUE), jnp.asarray(VALUE[::-1])])
    log_prob = d.log_prob(pairs)
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(log_prob[0], d.log_prob(VALUE), rtol=1e-5)
    single = [[cls(LOGITS[i], 2).log_prob(pairs[s, i]) for i in range(3)] for s in range(2)]
    np.testing.assert_allclose(log_prob, single, rtol=1e-5)


def test_all_ways_to_broadcast():
    d = shared(SkipAssignment)
    log_prob = np.stack([[SkipAssignment(a, 2).log_prob(z) for a in LOGITS] for z in VALUE])  # (value, distribution)
    np.testing.assert_allclose(d.log_prob(VALUE[0]), log_prob[0], rtol=1e-5)
    np.testing.assert_allclose(d.log_prob(VALUE[:, None]), log_prob, rtol=1e-5)
    np.testing.assert_allclose(d.log_prob(VALUE), np.diagonal(log_prob), rtol=1e-5)
    np.testing.assert_allclose(SkipAssignment(LOGITS[0], 2).log_prob(VALUE), log_prob[:, 0], rtol=1e-5)
    column = SkipAssignment(LOGITS[:, None], 2)
    assert column.batch_shape == (3, 1)
    np.testing.assert_allclose(column.log_prob(VALUE), log_prob.T, rtol=1e-5)
    with pytest.raises(ValueError, match=r"[Ii]ncompatible shapes"):
        d.log_prob(VALUE[:2])


@BOTH
def test_wrapped(cls):
    d = shared(cls)
    log_prob = d.log_prob(VALUE)
    np.testing.assert_array_equal(d.expand((5, 3)).log_prob(VALUE), jnp.broadcast_to(log_prob, (5, 3)))
    np.testing.assert_allclose(d.to_event(1).log_prob(VALUE), log_prob.sum(), rtol=1e-6)
    np.testing.assert_array_equal(dist.Independent(d, 1).log_prob(VALUE), d.to_event().log_prob(VALUE))
    assert d.to_event(0) is d
    assert d.expand((3,)) is d
    mask = jnp.array([True, False, True])
    np.testing.assert_array_equal(d.mask(mask).log_prob(VALUE), jnp.where(mask, log_prob, 0))
    invalid = VALUE.copy()
    invalid[1] = 7  # masked out: neither counted nor warned about
    np.testing.assert_array_equal(d.mask(mask).log_prob(invalid), jnp.where(mask, log_prob, 0))
    np.testing.assert_array_equal(d.mask(False).log_prob(invalid), jnp.zeros(3))
    assert d.mask(True) is d
    for shape in [(4,), (3, 5), ()]:
        with pytest.raises(ValueError, match="Cannot broadcast distribution"):
            d.expand(shape)
    with pytest.raises(ValueError, match="reinterpreted_batch_ndims"):
        d.to_event(2)


@BOTH
def test_draws_of_wrapped(cls):
    """Draws of an expanded distribution are independent, also along axes of size 1 within the batch."""
    column = cls(LOGITS[:, None], (4, 3)).expand((3, 40))
    value = column.sample(KEY)
    assert value.shape == (3, 40, 4)
    assert column.support(value).all()
    assert all(len(np.unique(row, axis=0)) > 1 for row in np.asarray(value))
    d = shared(cls)
    np.testing.assert_array_equal(d.to_event(1).sample(KEY), d.sample(KEY))
    np.testing.assert_array_equal(d.mask(jnp.array([True, False, True])).sample(KEY), d.sample(KEY))
    np.testing.assert_array_equal(d.expand_by((2,)).sample(KEY), d.sample(KEY, (2,)))
    sharp = cls(jnp.array([[[50.0, 0.0]] * 4, [[0.0, 50.0]] * 4])[:, None], 4).expand((2, 3))
    np.testing.assert_array_equal(sharp.sample(KEY), jnp.broadcast_to(jnp.array([[[0]], [[1]]]), (2, 3, 4)))


@BOTH
def test_entropy(cls):
    d = shared(cls)
    if cls is SkipAssignment:
        with pytest.raises(NotImplementedError):
            d.entropy()
        return
    shapes = jax.eval_shape(lambda: (d.entropy(), d.expand((5, 3)).entropy(), d.to_event(1).entropy()))
    assert [entropy.shape for entropy in shapes] == [(3,), (5, 3), ()]
    certain = cls(jnp.zeros((3, 2, 1)), 2)
    np.testing.assert_allclose(certain.expand((5, 3)).entropy(), jnp.zeros((5, 3)), atol=1e-5)
