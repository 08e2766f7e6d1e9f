"""A constant added to a datapoint's logits, or to an expert's where all places are taken, changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe._logits import centred, without_constants
from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from gumbel_moe.estimators import exact_loss
from gumbel_moe.routing import (
    BaseRouter,
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    QuantileBalancingRouter,
    SinkhornRouter,
    SkipRouter,
    SwitchRouter,
    load_balancing_loss,
)

KEY = jax.random.key(3)
N, K = 8, 2
# Two kinds of rows, of whose difference 1e3 and 2**20 leave every bit, larger constants none: then all are alike.
FINE = jnp.asarray(np.random.default_rng(0).integers(-16, 16, (N, K)) / 8, jnp.float32)
FLAT = jnp.zeros((N, K))
SHIFTS = [(FINE, 1e3), (FINE, -(2.0**20)), (FLAT, 1e9), (FLAT, -1e8), (FLAT, -1e30), (FLAT, 1e30), (FLAT, -3e38)]
ROUTERS = {
    "independent": IndependentRouter(),
    "skip": SkipRouter(2),
    "gumbel_matching": GumbelMatchingRouter(4),
    "gumbel_matching with room": GumbelMatchingRouter(5),
    "switch": SwitchRouter(3),
    "base": BaseRouter(5),  # its gate is a function of the logit itself
    "sinkhorn": SinkhornRouter(4, temperature=0.5),
    "expert_choice": ExpertChoiceRouter(3),
    "quantile": QuantileBalancingRouter(4),
}


def shifted(logits, shift, kind):
    """Every datapoint's logits, or every second one's, moved."""
    rows = np.ones(N) if kind == "all" else np.arange(N) % 2
    return logits + jnp.asarray(shift * rows[:, None], jnp.float32)


@pytest.mark.each_choice
@pytest.mark.parametrize("kind", ["all", "some"])
@pytest.mark.parametrize("name", ROUTERS)
def test_routers(name, kind):
    router = ROUTERS[name]
    for logits, shift in SHIFTS:
        found, expected = router(KEY, shifted(logits, shift, kind)), router(KEY, logits)
        for field, value in expected._asdict().items():
            if value is None:  # the weights of pairs, of several experts alone
                continue
            if name != "base" or field != "gate":
                message = f"{field} at {shift}"
                np.testing.assert_allclose(getattr(found, field), value, rtol=1e-5, atol=1e-6, err_msg=message)
        np.testing.assert_allclose(load_balancing_loss(found), load_balancing_loss(expected), rtol=1e-5)


@pytest.mark.each_choice
@pytest.mark.parametrize("capacity", [4, 5], ids=["all taken", "free places"])
@pytest.mark.parametrize("cls", [SkipAssignment, GumbelMatching])
def test_distributions(cls, capacity):
    for logits, shift in SHIFTS:
        found, expected = cls(shifted(logits, shift, "some"), capacity), cls(logits, capacity)
        value = expected.sample(KEY, (50,))
        np.testing.assert_array_equal(found.sample(KEY, (50,)), value)
        assert len(np.unique(value, axis=0)) > 10  # one alone is what is drawn where the noise is lost
        np.testing.assert_allclose(found.log_prob(value[:2]), expected.log_prob(value[:2]), rtol=1e-5)
        if cls is GumbelMatching:
            log_q = (d.sample_with_conditionals(KEY, (50,))[1] for d in (found, expected))
            np.testing.assert_allclose(*log_q, rtol=1e-4, atol=1e-5)


def test_exact_loss():
    losses = jnp.arange(N * K, dtype=jnp.float32).reshape(N, K)
    for logits, shift in SHIFTS:
        np.testing.assert_allclose(exact_loss(shifted(logits, shift, "some"), losses), exact_loss(logits, losses))


@pytest.mark.parametrize(("logits", "shift"), [(FINE, 2.0**20), (FLAT, 1e9), (FLAT, -1e30), (FLAT, 1e30)])
def test_experts_where_all_places_are_taken(logits, shift):
    """A constant of an expert leaves the balanced assignments alone, though not the weights, which are `p / q`."""
    moved = logits + jnp.array([shift, 0.0])
    found, expected = GumbelMatching(moved, 4), GumbelMatching(logits, 4)
    value, log_q = expected.sample_with_conditionals(KEY, (50,))
    drawn, moved_q = found.sample_with_conditionals(KEY, (50,))
    np.testing.assert_array_equal(drawn, value)
    np.testing.assert_allclose(moved_q, log_q, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.log_prob(value[:2]), expected.log_prob(value[:2]), rtol=1e-5)
    with_room = GumbelMatching(moved, 5).sample(KEY, (50,))  # and where there is room it matters
    assert ((np.asarray(with_room) == (0 if shift > 0 else 1)).sum(axis=1) == 5).all()


@pytest.mark.parametrize("mask", [-1e4, -1e9, -1e30, np.finfo(np.float32).min])
def test_huge_negative_logits_are_as_good_as_forbidden(mask):
    rng = np.random.default_rng(1)
    barred = rng.random((N, K)) < 0.3
    barred[np.arange(N), np.arange(N) % K] = False  # an assignment within the capacities is left
    scores = np.asarray(rng.normal(size=(N, K)), np.float32)
    forbidden = GumbelMatching(np.where(barred, -np.inf, scores), 5)
    masked = GumbelMatching(np.where(barred, np.float32(mask), scores), 5)
    value, log_q = forbidden.sample_with_conditionals(KEY, (50,))
    drawn, masked_q = masked.sample_with_conditionals(KEY, (50,))
    np.testing.assert_array_equal(drawn, value)
    np.testing.assert_allclose(np.exp(masked_q), np.exp(log_q), atol=1e-6)
    np.testing.assert_allclose(masked.log_prob(value[:2]), forbidden.log_prob(value[:2]), rtol=1e-5)


def test_centred_keeps_what_is_finite_finite_and_the_gradient():
    most = float(np.finfo(np.float32).max)
    rows = jnp.array([[most, -most, -jnp.inf], [-jnp.inf] * 3, [1.0, 3.0, 2.0]])
    expected = [[0, -most, -np.inf], [-np.inf] * 3, [-2, 0, -1]]
    np.testing.assert_array_equal(centred(rows), expected)
    np.testing.assert_array_equal(
        jax.jit(jax.grad(lambda x: centred(x)[2, 0]))(rows), [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    )
    assert np.isnan(centred(rows.at[2, 1].set(jnp.nan))[2, 1])


def test_capacities_whose_sum_overflows_are_not_tight():
    column = jnp.array([[0.0, -5.0]] * 2)
    huge = jnp.full(2, np.iinfo(np.int32).max, jnp.int32)
    np.testing.assert_array_equal(without_constants(column, huge), column)
    np.testing.assert_array_equal(without_constants(column, jnp.ones(2, jnp.int32)), 0 * column)
