"""Arguments: their forms, their constraints, when they are checked, and keys of both styles."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from tests.distributions.conformance.cases import ALL, BOTH, KEY, LOGITS, shared

BAD = [
    (np.full((4, 2), np.nan, np.float32), 2, "logits must not contain NaN"),
    (np.full((4, 2), np.inf, np.float32), 2, r"logits must not contain \+inf"),
    (np.full((4, 2), -np.inf, np.float32), 2, "forbids every expert"),
    (np.zeros((4, 2), np.float32), 0, "capacity must be at least 1"),
    (np.zeros((4, 2), np.float32), (5, -1), "capacity must be at least 1"),
]


@BOTH
@pytest.mark.parametrize(
    ("logits", "capacity"),
    [
        (LOGITS[0].tolist(), 2),
        (tuple(map(tuple, LOGITS[0].tolist())), (2, 2)),
        (LOGITS[0], [2, 2]),
        (LOGITS[0], np.int64(2)),
        (LOGITS[0], np.array([2, 2], np.uint64)),
        (LOGITS[0], np.array([2, 2], np.uint8)),
        (jnp.asarray(LOGITS[0]), np.array([2, 2])),
        (jnp.asarray(LOGITS[0]), jnp.array(2)),
    ],
    ids=[
        "lists",
        "tuples",
        "array and list",
        "array and scalar",
        "array and uint64",
        "array and uint8",
        "jax and array",
        "jax and jax",
    ],
)
def test_forms(cls, logits, capacity):
    d = cls(logits, capacity)
    assert d.logits.dtype == jnp.float32
    assert d.capacity.dtype == jnp.int32
    assert d.capacity.tolist() == [2, 2]
    assert set(d.get_args()) == {"logits", "capacity"}
    np.testing.assert_array_equal(d.sample(KEY), cls(jnp.asarray(LOGITS[0]), 2).sample(KEY))


@ALL
def test_keys_of_both_styles(cls):
    d = shared(cls)
    np.testing.assert_array_equal(d.sample(jax.random.PRNGKey(7)), d.sample(jax.random.key(7)))
    np.testing.assert_array_equal(d.sample(KEY), d.sample(key=KEY, sample_shape=()))
    np.testing.assert_array_equal(d.sample(KEY), d(rng_key=KEY, sample_shape=()))
    assert not jnp.array_equal(d.sample(KEY), d.sample(jax.random.key(2)))
    for wrong in (None, 0, jax.random.split(KEY)):
        with pytest.raises(TypeError, match=r"key must be a (single )?JAX key"):
            d.sample(wrong)
    with pytest.raises(TypeError, match=r"handlers\.seed"):
        numpyro.sample("z", d)


@BOTH
def test_constraints(cls):
    d = shared(cls)
    assert set(cls.arg_constraints) == {"logits", "capacity"}
    logits, capacity = cls.arg_constraints["logits"], cls.arg_constraints["capacity"]
    assert (logits.event_dim, logits.is_discrete) == (2, False)
    assert (capacity.event_dim, capacity.is_discrete) == (1, True)
    assert logits(d.logits).tolist() == [True, True, True]
    assert capacity(d.capacity)
    for bad, places, _ in BAD:
        assert not (logits(bad) and capacity(np.broadcast_to(places, 2)))
    assert logits(logits.feasible_like(LOGITS)).all()
    assert capacity(capacity.feasible_like(d.capacity))


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize(("logits", "capacity", "message"), BAD)
def test_values_are_checked(cls, logits, capacity, message):
    with pytest.raises(ValueError, match=message):
        cls(logits, capacity)
    with pytest.raises(ValueError, match=message):
        cls(logits, capacity, validate_args=True)
    with pytest.raises(ValueError, match=message):  # a constant inside jit
        jax.jit(lambda: cls(logits, capacity))()


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize(("logits", "capacity", "message"), BAD)
def test_values_are_not_checked_without_validation(cls, logits, capacity, message):
    d = cls(logits, capacity, validate_args=False)
    with numpyro.validation_enabled(False):
        assert cls(logits, capacity).event_shape == d.event_shape == (4,)
    with pytest.raises(ValueError, match=message):
        d.validate_args()


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize("validate_args", [False, True])
@pytest.mark.parametrize(
    ("logits", "capacity", "error", "message"),
    [
        (jnp.zeros(4), 2, ValueError, "logits must have shape"),
        (jnp.zeros((4, 0)), 2, ValueError, "logits must have at least one expert"),
        (jnp.zeros((4, 2), int), 2, TypeError, "logits must be floating point"),
        (jnp.zeros((4, 2)), 2.5, ValueError, "capacity must be an int"),
        (jnp.zeros((4, 2)), (2, 2, 2), ValueError, "capacity must be an int"),
        (jnp.zeros((4, 2)), ((2, 2),), ValueError, "capacity must be an int"),
    ],
)
def test_shapes_and_dtypes_are_always_checked(cls, logits, capacity, error, message, validate_args):
    with pytest.raises(error, match=message):
        cls(logits, capacity, validate_args=validate_args)


def test_room_for_all_datapoints():
    with pytest.raises(ValueError, match="capacity has room for 2 datapoints"):
        GumbelMatching(jnp.zeros((4, 2)), 1)
    d = GumbelMatching(jnp.zeros((4, 2)), 1, validate_args=False)
    with pytest.raises(ValueError, match="capacity has room for 2 datapoints"):
        d.validate_args()
    with pytest.raises(ValueError, match="capacity has room for 2 datapoints"):
        d.sample(KEY)
    assert SkipAssignment(jnp.zeros((4, 2)), 1).sample(KEY).shape == (4,)


@BOTH
def test_traced_arguments_cannot_be_validated(cls):
    validate = jax.jit(lambda d, strict: d.validate_args(strict), static_argnums=1)
    validate(shared(cls), False)
    with pytest.raises(RuntimeError, match="Cannot validate arguments"):
        validate(shared(cls), True)
    shared(cls).validate_args(strict=True)
    mapped = jax.vmap(lambda a: cls(a, 2, validate_args=True))(jnp.asarray(LOGITS))
    assert mapped._validate_args


def test_numbers_of_draws():
    with pytest.raises(ValueError, match="num_draws must be a positive int"):
        shared(GumbelMatching, num_draws=0)
    with pytest.raises(ValueError, match="target_error must be finite and positive"):
        shared(GumbelMatching, target_error=-1.0)


def test_nan_under_jit():
    """What cannot be looked at comes back as NaN, or as -1."""
    value, log_q = jax.jit(lambda a: GumbelMatching(a, 2).sample_with_conditionals(KEY))(jnp.full((4, 2), jnp.nan))
    assert (value == -1).all()
    assert jnp.isnan(log_q).all()
    log_prob = jax.jit(lambda a: SkipAssignment(a, 2).log_prob(jnp.array([0, 0, 1, 1])))(jnp.full((4, 2), jnp.nan))
    assert jnp.isnan(log_prob)
