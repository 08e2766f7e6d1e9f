"""Both distributions as NumPyro distributions: shapes, constraints, pytrees, transformations, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers

from gumbel_moe.distributions import GumbelMatching, SkipAssignment

BOTH = pytest.mark.parametrize("cls", [SkipAssignment, GumbelMatching])


@BOTH
@pytest.mark.parametrize("sample_shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("batch_shape", [(), (2,), (4, 1)])
def test_shapes(cls, sample_shape, batch_shape):
    d = cls(jnp.zeros((*batch_shape, 6, 2)), 3)
    value = d.sample(jax.random.key(0), sample_shape)
    assert d.batch_shape == batch_shape
    assert d.event_shape == (6,)
    assert value.shape == (*sample_shape, *batch_shape, 6)
    assert value.dtype == jnp.int32
    assert d.support(value).shape == (*sample_shape, *batch_shape)
    assert d.support(value).all()
    assert cls.infer_shapes(logits=(*batch_shape, 6, 2), capacity=()) == (batch_shape, (6,))


@BOTH
def test_support(cls):
    d = cls(jnp.zeros((4, 2)), (3, 1))
    assert d.is_discrete
    assert not d.has_rsample
    assert not d.has_enumerate_support
    assert d.support.event_dim == 1
    inside = d.support.feasible_like(jnp.zeros((5, 4), jnp.int32))
    assert inside.shape == (5, 4)
    assert d.support(inside).all()
    for outside in ([0, 0, 0, 2], [0, 0, 1, 1], [0.5, 0, 0, 1], [0, 0, 0, -3]):
        assert not d.support(jnp.array(outside))
    assert d.support == cls(jnp.ones((4, 2)), (3, 1)).support
    assert d.support != cls(jnp.ones((4, 2)), (2, 2)).support
    assert "capacity=[3 1]" in repr(d.support)


@BOTH
def test_pytree_round_trip_jit_and_vmap(cls):
    d = cls(jax.random.normal(jax.random.key(0), (3, 6, 2)), 3)
    leaves, treedef = jax.tree.flatten(d)
    again = jax.tree.unflatten(treedef, leaves)
    np.testing.assert_array_equal(again.sample(jax.random.key(1)), d.sample(jax.random.key(1)))
    np.testing.assert_array_equal(
        jax.jit(lambda d, key: d.sample(key))(d, jax.random.key(1)), d.sample(jax.random.key(1))
    )
    mapped = jax.vmap(lambda a, key: cls(a, 3).sample(key))(d.logits, jax.random.split(jax.random.key(2), 3))
    assert d.support(mapped).all()
    stacked = jax.vmap(lambda a: cls(a, 3))(d.logits)
    values = jax.vmap(lambda d, key: d.sample(key))(stacked, jax.random.split(jax.random.key(2), 3))
    np.testing.assert_array_equal(values, mapped)


@BOTH
def test_vmap_over_capacity(cls):
    logits = jax.random.normal(jax.random.key(0), (6, 2))
    values = jax.vmap(lambda c: cls(logits, c).sample(jax.random.key(1)))(jnp.array([3, 4, 6]))
    for capacity, value in zip([3, 4, 6], values, strict=True):
        np.testing.assert_array_equal(value, cls(logits, capacity).sample(jax.random.key(1)))


@BOTH
def test_in_a_numpyro_model(cls):
    def model():
        return numpyro.sample("z", cls(jnp.zeros((6, 2)), 3))

    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace()
    assert trace["z"]["value"].shape == (6,)
    expanded = cls(jnp.zeros((6, 2)), 3).expand((5,))
    assert expanded.sample(jax.random.key(0)).shape == (5, 6)


@BOTH
def test_log_prob_broadcasts_and_transforms(cls):
    d = cls(jax.random.normal(jax.random.key(0), (3, 6, 2)), 3)
    value = d.sample(jax.random.key(1), (4,))
    log_prob = d.log_prob(value)
    assert log_prob.shape == (4, 3)
    np.testing.assert_allclose(jax.jit(d.log_prob)(value), log_prob, rtol=1e-5)
    single = cls(d.logits[1], 3).log_prob(value[2, 1])
    np.testing.assert_allclose(single, log_prob[2, 1], rtol=1e-5)
    np.testing.assert_allclose(d.expand((5, 3)).log_prob(value[0]), jnp.broadcast_to(log_prob[0], (5, 3)), rtol=1e-5)
    assert d.to_event(1).log_prob(value).shape == (4,)


@BOTH
def test_values_outside_the_support_warn_and_have_probability_zero(cls):
    d = cls(jnp.zeros((4, 2)), 2)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert jnp.isneginf(d.log_prob(jnp.array([0, 0, 0, 1])))


@BOTH
@pytest.mark.parametrize(
    ("logits", "capacity", "error", "message"),
    [
        (jnp.zeros(4), 2, ValueError, "logits must have shape"),
        (jnp.zeros((4, 2), int), 2, TypeError, "logits must be floating point"),
        (jnp.full((4, 2), jnp.nan), 2, ValueError, "logits must not contain NaN"),
        (jnp.full((4, 2), jnp.inf), 2, ValueError, r"logits must not contain \+inf"),
        (jnp.full((4, 2), -jnp.inf), 2, ValueError, "forbids every expert"),
        (jnp.zeros((4, 2)), 0, ValueError, "capacity must be at least 1"),
        (jnp.zeros((4, 2)), -1, ValueError, "capacity must be at least 1"),
        (jnp.zeros((4, 2)), 2.5, ValueError, "capacity must be an int"),
        (jnp.zeros((4, 2)), (2, 2, 2), ValueError, "capacity must be an int"),
    ],
)
def test_bad_arguments(cls, logits, capacity, error, message):
    with pytest.raises(error, match=message):
        cls(logits, capacity)


def test_room():
    with pytest.raises(ValueError, match="capacity has room for 2 datapoints"):
        GumbelMatching(jnp.zeros((4, 2)), 1)
    assert SkipAssignment(jnp.zeros((4, 2)), 1).sample(jax.random.key(0)).shape == (4,)


def test_nan_under_jit():
    value, log_q = jax.jit(lambda a: GumbelMatching(a, 2).sample_with_conditionals(jax.random.key(0)))(
        jnp.full((4, 2), jnp.nan)
    )
    assert (value == -1).all()
    assert jnp.isnan(log_q).all()
    log_prob = jax.jit(lambda a: SkipAssignment(a, 2).log_prob(jnp.array([0, 0, 1, 1])))(jnp.full((4, 2), jnp.nan))
    assert jnp.isnan(log_prob)
