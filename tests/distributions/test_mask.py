"""Assignment distributions of which some datapoints take no part: as if they were not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import (
    GumbelMatching,
    SkipAssignment,
    enumerate_assignments,
    matching_log_prob,
    outcome_probabilities,
)
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value

MASK = np.array([1, 0, 1, 1, 0, 1], bool)
LOGITS = jax.random.normal(jax.random.key(0), (6, 2))
DIRTY = jnp.where(MASK[:, None], LOGITS, jnp.array([jnp.nan, -jnp.inf]))
BOTH = pytest.mark.parametrize("cls", [SkipAssignment, GumbelMatching])
KEY = jax.random.key(1)


def spread(value, k=2):
    """Values of those that take part, `(..., 4)`, as values of all, `(..., 6)`."""
    full = np.full((*np.shape(value)[:-1], 6), k)
    full[..., MASK] = value
    return full


def p_value(drawn, probs):
    """Of draws `(draws, 6)` under the probabilities of the assignments of those that take part."""
    return chisquare_p_value(np.asarray(drawn)[:, MASK], enumerate_assignments(4, 2, 2), probs)


def test_matching_of_those_that_take_part():
    d = GumbelMatching(DIRTY, 2, mask=MASK)
    drawn, log_q = d.sample_with_conditionals(KEY, (4000,))
    assert (np.asarray(drawn)[:, ~MASK] == 2).all()
    assert d.support(drawn).all()
    assert p_value(drawn, outcome_probabilities(LOGITS[MASK], 2)) > FALSE_FAIL_RATE
    assert p_value(drawn, outcome_probabilities(LOGITS[MASK] * 0.5, 2)) < FALSE_FAIL_RATE  # a wrong variant
    assert (np.asarray(log_q)[:, ~MASK] == -np.inf).all()
    np.testing.assert_allclose(np.exp(log_q)[:, MASK].sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize("capacity", [2, 3, np.array([1, 3])], ids=str)
def test_log_prob_is_that_of_the_others(cls, capacity):
    value = cls(LOGITS[MASK], capacity).sample(KEY, (7,))

    def both(logits, value, **mask):
        log_prob = cls(logits, capacity, **mask).log_prob(value)
        return log_prob.sum(), log_prob

    expected = jax.jit(jax.grad(both, has_aux=True))(LOGITS[MASK], value)
    found = jax.jit(jax.grad(both, has_aux=True))(DIRTY, spread(value), mask=MASK)
    np.testing.assert_allclose(found[1], expected[1], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(np.asarray(found[0])[MASK], expected[0], atol=1e-4)
    assert (np.asarray(found[0])[~MASK] == 0).all()


@BOTH
def test_values_that_disagree_with_the_mask_are_outside(cls):
    d = cls(DIRTY, 2, mask=MASK, validate_args=False)
    inside = spread([0, 0, 1, 1])
    assert np.isfinite(d.log_prob(inside))
    for index, wrong in [(1, 0), (1, ~0), (1, 3), (1, ~2), (0, 2), (0, ~2)]:
        value = inside.copy()
        value[index] = wrong
        assert d.log_prob(value) == -np.inf
        assert not d.support(value)


@pytest.mark.parametrize("capacity", [1, 2, 9])
def test_skipping_counts_those_that_take_part(capacity):
    d = SkipAssignment(DIRTY, capacity, mask=MASK)
    value = d.sample(KEY, (200,))
    expert, kept, weight = (np.asarray(x) for x in (d.expert(value), d.kept(value), d.importance_weights(value)))
    assert (expert[:, ~MASK] == 2).all()
    assert not kept[:, ~MASK].any()
    for j in range(2):
        drawn = (expert == j).sum(axis=1)
        np.testing.assert_array_equal((kept & (expert == j)).sum(axis=1), np.minimum(drawn, capacity))
        assert (weight == 0)[expert == j].sum() == (drawn - np.minimum(drawn, capacity)).sum()
        np.testing.assert_allclose((weight * (expert == j)).sum(axis=1), drawn, rtol=1e-6)
    assert d.support(value).all()


@pytest.mark.parametrize("cls", [SkipAssignment, pytest.param(GumbelMatching, marks=pytest.mark.slow)])
def test_transformations(cls):
    masks = np.stack([MASK, ~MASK, np.ones(6, bool)])
    batch = cls(jnp.broadcast_to(jnp.where(jnp.isfinite(DIRTY), DIRTY, 0), (3, 6, 2)), 3, mask=masks)
    assert batch.batch_shape == (3,)
    value = batch.sample(KEY, (5,))
    assert ((np.asarray(value) == 2) == ~masks).all()
    leaves, tree = jax.tree.flatten(batch)
    np.testing.assert_array_equal(jax.jit(lambda d: d.sample(KEY, (5,)))(jax.tree.unflatten(tree, leaves)), value)
    singly = jax.vmap(lambda logits, mask, z: cls(logits, 3, mask=mask).log_prob(z))(batch.logits, masks, value[0])
    np.testing.assert_allclose(singly, batch.log_prob(value[0]), rtol=1e-5)
    assert batch.support(batch.support.feasible_like(value)).all()


def test_function_and_bad_mask():
    value = spread([0, 1, 1, 0])
    found = matching_log_prob(DIRTY, value, 2, mask=MASK)
    np.testing.assert_allclose(found.value, matching_log_prob(LOGITS[MASK], value[MASK], 2).value, rtol=1e-6)
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(6,\)"):
        matching_log_prob(DIRTY, value, 2, mask=np.ones(6))
    with pytest.raises(ValueError, match=r"room for 2 datapoints .* there are 4"):
        GumbelMatching(DIRTY, 1, mask=MASK)


def test_nobody_takes_part():
    for cls in (SkipAssignment, GumbelMatching):
        d = cls(jnp.full((6, 2), jnp.nan), 1, mask=np.zeros(6, bool))
        value = d.sample(KEY)
        assert value.tolist() == [2] * 6
        np.testing.assert_allclose(d.log_prob(value), 0, atol=1e-6)
