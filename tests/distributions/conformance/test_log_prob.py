"""`log_prob` on a cover of the grid; batches of values against batches of distributions; wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment
from tests.distributions.conformance.cases import (
    ALL,
    ALL_ONE_SLOW,
    BOTH,
    CAPACITIES,
    COVER,
    GRID,
    KEY,
    LOGITS,
    VALUE,
    num_datapoints,
    problem,
    shared,
)


def check_draw(d, value, log_prob):
    k = d.num_experts
    assert (value.shape, value.dtype) == ((*d.batch_shape, num_datapoints(k)), jnp.int32)
    assert d.support(np.asarray(value)).all()
    assert (log_prob.shape, log_prob.dtype) == (d.batch_shape, jnp.float32)
    assert jnp.isfinite(log_prob).all()
    assert (log_prob < 1e-5).all()
    if k == 1 and (not isinstance(d, SkipAssignment) or d.capacity[..., 0] >= num_datapoints(k)):
        np.testing.assert_allclose(log_prob, 0, atol=1e-6)  # one expert, nobody skipped: certain


@pytest.mark.parametrize(("batch_shape", "k", "kind"), GRID)
def test_skip_with_nobody_skipped(batch_shape, k, kind):
    """On the whole grid, against the categoricals by NumPy."""
    d = problem(SkipAssignment, batch_shape, k, kind)
    value = np.repeat(np.arange(k, dtype=np.int32), d.capacity.reshape(k))[: num_datapoints(k)]
    logits = np.asarray(d.logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = log_p[..., np.arange(len(value)), value].sum(axis=-1)
    log_prob = d.log_prob(np.broadcast_to(value, d.shape()))
    assert (log_prob.shape, log_prob.dtype) == (batch_shape, jnp.float32)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-6)
    assert d.support(value)


def some(cls, cases, slow):
    """Cases of the grid for a class, some of them slow."""
    return [pytest.param(cls, *case, marks=[pytest.mark.slow] if slow(case) else []) for case in cases]


@pytest.mark.each_choice
@pytest.mark.parametrize(
    ("cls", "batch_shape", "k", "kind"),
    some(SkipAssignment, GRID, lambda case: case not in COVER)
    + some(UniformAssignment, GRID, lambda case: case not in COVER)
    + some(GumbelMatching, GRID, lambda case: case not in COVER or case[1] == 5),
)
def test_draws(cls, batch_shape, k, kind):
    d = problem(cls, batch_shape, k, kind)
    value = d.sample(KEY)
    check_draw(d, value, d.log_prob(value))


@pytest.mark.parametrize("kind", CAPACITIES)
def test_draws_of_gumbel_matching_with_five_experts(kind):
    d = problem(GumbelMatching, (), 5, kind)
    value = d.sample(KEY)
    assert d.support(value)
    assert (value.shape, value.dtype) == ((num_datapoints(5),), jnp.int32)


@ALL_ONE_SLOW  # the nested plates broadcast values of GumbelMatching in this shape
def test_values_broadcast_against_the_batch(cls):
    """Of every value the log-probability under every distribution that it meets."""
    d = shared(cls, validate_args=False)
    pairs = jnp.stack([jnp.asarray(VALUE), jnp.asarray(VALUE[::-1])])
    log_prob = d.log_prob(pairs)
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(log_prob[0], d.log_prob(VALUE), rtol=1e-5)
    np.testing.assert_allclose(log_prob[1], d.log_prob(VALUE[::-1]), rtol=1e-5)


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


@ALL
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
    sharp = cls(np.where(np.arange(3)[:, None, None, None] == 1, [-50.0, 50.0], [[50.0, -50.0]] * 4), 4).expand((3, 40))
    np.testing.assert_array_equal(sharp.sample(KEY), np.broadcast_to(np.array([[[0]], [[1]], [[0]]]), (3, 40, 4)))
    d = shared(cls)
    np.testing.assert_array_equal(d.to_event(1).sample(KEY), d.sample(KEY))
    np.testing.assert_array_equal(d.mask(jnp.array([True, False, True])).sample(KEY), d.sample(KEY))


@ALL
def test_entropy(cls):
    d = shared(cls)
    if cls is SkipAssignment:
        with pytest.raises(NotImplementedError):
            d.entropy()
        return
    shapes = jax.eval_shape(lambda: (d.entropy(), d.expand((5, 3)).entropy(), d.to_event(1).entropy()))
    assert [entropy.shape for entropy in shapes] == [(3,), (5, 3), ()]
