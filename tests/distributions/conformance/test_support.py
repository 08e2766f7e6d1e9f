"""Supports: what is inside, what is warned about, and constraints as values."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import constraints
from numpyro.infer.util import log_density

from tests.distributions.conformance.cases import ALL, COVER, LOGITS, VALUE, made, num_datapoints, problem, shared

OUTSIDE = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 2]], np.int32)  # the second and the third value
MESSAGE = "Out-of-support values provided to log prob method"


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize(("batch_shape", "k", "kind"), COVER)
def test_feasible_values(cls, batch_shape, k, kind):
    d = problem(cls, batch_shape, k, kind)
    inside = np.asarray(d.support.feasible_like(np.zeros(d.shape(), np.int32)))
    assert (inside.shape, inside.dtype) == (d.shape(), np.int32)
    assert d.support(inside).shape == batch_shape
    assert d.support(inside).all()
    assert d.support.check(inside).all()
    assert not d.support(inside + k).any()
    assert not d.support(inside - 3 * k).any()
    crowd = np.zeros(d.shape(), np.int32)  # everyone at the first expert
    assert d.support(crowd).all() == d.support(crowd).any() == (d.capacity[..., 0] >= num_datapoints(k)).all()


@ALL
def test_kind_of_support(cls):
    d = shared(cls, (3, 2))
    assert d.is_discrete
    assert d.support.is_discrete
    assert (d.support.event_dim, cls.support.event_dim, cls.support.is_discrete) == (1, 1, True)
    assert not d.has_rsample
    assert not d.has_enumerate_support
    assert "capacity=[3 2]" in repr(d.support)
    for outside in ([0, 0, 0, 2], [1, 1, 0, 1], [0.5, 0, 0, 1], [0, 0, 0, -3], [0, 0, 1, np.nan]):
        assert not d.support(jnp.array(outside))
        assert not d.support(np.array(outside))
    assert d.support([0, 0, 1, 1])


@ALL
def test_supports_are_values(cls):
    support = shared(cls).support
    assert support == shared(cls, (2, 2)).support
    assert support != shared(cls, (2, 3)).support
    assert support != constraints.simplex
    assert support == pickle.loads(pickle.dumps(support))
    assert support == jax.tree.map(lambda x: x, support) == jax.jit(lambda c: c)(support)
    assert jax.jit(lambda c: c.eq(support))(support)
    stacked = jax.vmap(lambda c: made(cls, LOGITS[0], c).support)(jnp.array([2, 3]))
    value = jnp.array([0, 0, 0, 1])
    assert jax.vmap(lambda c: c(value))(stacked).tolist() == [False, True]
    assert jax.vmap(lambda c: c.eq(support))(stacked).tolist() == [True, False]


@ALL
def test_values_outside_warn(cls):
    d = shared(cls)
    for value in (OUTSIDE, jnp.asarray(OUTSIDE)):
        with pytest.warns(UserWarning, match=MESSAGE):
            log_prob = d.log_prob(value)
        assert jnp.isneginf(log_prob).tolist() == [False, True, True]
        with pytest.warns(UserWarning, match=MESSAGE):  # a constant inside jit
            jax.eval_shape(lambda v=value: d.log_prob(v))
    with pytest.warns(UserWarning, match=MESSAGE):
        log_density(lambda: observe(d, OUTSIDE), (), {}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d.log_prob(VALUE)
        assert jnp.isneginf(shared(cls, validate_args=False).log_prob(OUTSIDE)).tolist() == [False, True, True]


def observe(d, value):
    with numpyro.plate("batch", 3):
        return numpyro.sample("z", d, obs=value)


@ALL
def test_values_of_another_length_are_refused(cls):
    for shape in [(), (1,), (3,), (3, 1), (4, 3)]:
        with pytest.raises(ValueError, match=r"value must have shape \(\.\.\., 4\)"):
            shared(cls).log_prob(jnp.zeros(shape, jnp.int32))


@ALL
def test_float_values(cls):
    """Whole numbers of any dtype count; others are outside."""
    d = shared(cls, validate_args=False)
    np.testing.assert_array_equal(d.log_prob(VALUE.astype(np.float32)), d.log_prob(VALUE))
    assert jnp.isneginf(d.log_prob(VALUE + np.float32(0.5))).all()
    assert LOGITS.dtype == d.log_prob(VALUE).dtype
