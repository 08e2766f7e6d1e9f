"""`sample_with_weights` of both distributions: the same draws, weights that make them unbiased, none who is nobody."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from tests.randomness import z_limit

KEY = jax.random.key(0)
LOGITS = jax.random.normal(jax.random.key(5), (6, 3)) * 1.5
BOTH = pytest.mark.parametrize("cls", [GumbelMatching, SkipAssignment])


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize("capacity", [2, 3, np.array([1, 2, 4])], ids=str)
def test_the_draws_of_sample_with_shapes_and_batches(cls, capacity, x64):
    d = cls(jnp.stack([LOGITS, -LOGITS]).astype(float), capacity)
    value, weight = d.sample_with_weights(KEY, (4,))
    np.testing.assert_array_equal(value, d.sample(KEY, (4,)))
    assert weight.shape == value.shape == (4, 2, 6)
    assert weight.dtype == d.logits.dtype
    assert (weight >= 0).all()
    one, single = cls(LOGITS.astype(float), capacity).sample_with_weights(KEY)
    assert one.shape == single.shape == (6,)


@BOTH
def test_weights_by_their_definition(cls):
    d = cls(LOGITS, 2)
    value, weight = map(np.asarray, d.sample_with_weights(KEY, (20,)))
    if cls is SkipAssignment:
        expert, kept = np.asarray(d.expert(value)), np.asarray(d.kept(value))
        drawn = (expert[:, :, None] == np.arange(3)).sum(axis=1)
        own = np.take_along_axis(drawn, expert, axis=1)
        expected = np.where(kept, own / np.minimum(own, 2), 0)
    else:
        log_q = np.asarray(d.sample_with_conditionals(KEY, (20,))[1])
        log_p = np.broadcast_to(jax.nn.log_softmax(LOGITS), log_q.shape)
        expected = np.exp(np.take_along_axis(log_p - log_q, value[..., None], axis=2)[..., 0])
    np.testing.assert_allclose(weight, expected, rtol=1e-5)


@BOTH
def test_weights_are_unbiased_and_ones_are_not(cls):
    """20,000 draws, the largest of 18 z-scores of means. False-fail rate 1e-6."""
    d = cls(LOGITS, 2)
    value, weight = map(np.asarray, jax.jit(d.sample_with_weights, static_argnums=1)(KEY, (20_000,)))
    drawn = np.where(value < 0, -1 - value, value)[..., None] == np.arange(3)

    def largest_z(weight):
        terms = weight[..., None] * drawn
        error = terms.std(axis=0) / np.sqrt(len(terms))
        return np.abs((terms.mean(axis=0) - np.asarray(jax.nn.softmax(LOGITS))) / error).max()

    assert largest_z(weight) < z_limit(18)
    assert largest_z((value >= 0).astype(float)) > 20


@BOTH
def test_who_is_left_out_has_no_weight_and_nothing_has_a_gradient(cls):
    mask = jnp.array([True, True, False, True, False, True])
    dirty = jnp.where(mask[:, None], LOGITS, jnp.nan)
    value, weight = cls(dirty, 2, mask=mask).sample_with_weights(KEY, (50,))
    assert (weight[:, ~mask] == 0).all()
    assert (value[:, ~mask] == 3).all()
    assert (weight[:, mask].max(axis=0) > 0).all()
    gradient = jax.jit(jax.grad(lambda a: cls(a, 2).sample_with_weights(KEY)[1].sum()))(LOGITS)
    assert (gradient == 0).all()


def test_no_feasible_matching_has_nan_weights():
    forbidden = jnp.zeros((4, 2)).at[:3, 0].set(-jnp.inf)
    value, weight = jax.jit(GumbelMatching(forbidden, 2).sample_with_weights)(KEY)
    assert (value == -1).all()
    assert jnp.isnan(weight).all()


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (GumbelMatching, "no formula is known for the probability of a whole assignment of several experts"),
        (SkipAssignment, "a sum over the orders they came in, is not offered"),
    ],
)
def test_several_experts_are_for_the_routers(cls, why):
    with pytest.raises(ValueError, match=f"experts_per_datapoint must be None for {cls.__name__}, got 2: .*{why}"):
        cls(jnp.zeros((4, 2)), 4, experts_per_datapoint=2)
