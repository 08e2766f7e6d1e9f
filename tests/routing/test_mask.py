"""Datapoints that are left out: a batch with them is the batch without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gumbel_moe.routing import (
    GumbelMatchingRouter,
    IndependentRouter,
    SkipRouter,
    as_one_batch,
    capacity_for,
    combine,
    dispatch,
    load,
    load_balancing_loss,
)
from tests.routing import routers

MASK = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1], bool)  # 8 of 11, as in the logits of `routers`
GARBAGE = [np.nan, np.inf, -np.inf, 1e30, 0.0]
CHOOSING = routers.TOP_ONE | {"expert_choice": routers.ALL["expert_choice"]}


def padded(logits, fill=np.nan):
    """`logits` `(8, k)` with three rows of padding that hold what they should not."""
    rows = np.full((len(MASK), logits.shape[1]), fill)
    rows[MASK] = logits
    return jnp.asarray(rows, logits.dtype)


@pytest.mark.parametrize("name", CHOOSING)
def test_choices_are_those_of_the_batch_without_them(name):
    router, logits = CHOOSING[name], routers.logits()
    expected = router(routers.KEY, logits)
    for fill in GARBAGE:
        found = router(routers.KEY, padded(logits, fill), mask=MASK)
        np.testing.assert_array_equal(found.mask, MASK)
        np.testing.assert_array_equal(load(found), load(expected))
        np.testing.assert_allclose(load_balancing_loss(found), load_balancing_loss(expected), rtol=1e-6)
        if name == "expert_choice":
            np.testing.assert_array_equal(found.datapoint, np.flatnonzero(MASK)[expected.datapoint])
            np.testing.assert_allclose(found.gate, expected.gate, rtol=1e-6)
            continue
        jax.tree.map(lambda mine, plain: np.testing.assert_allclose(mine[MASK], plain, rtol=1e-6), found, expected)
        check_absent(found)


def check_absent(routing):
    k = routing.log_probs.shape[1]
    expected = {"expert": k, "kept": False, "weight": 0, "log_prob": 0, "gate": 0, "log_probs": -np.inf}
    for field, value in expected.items():
        assert (np.asarray(getattr(routing, field))[~MASK] == value).all(), field


@pytest.mark.parametrize("name", ["loss_free", "quantile_balancing"])
def test_bias_learns_from_those_that_take_part(name):
    router, logits = CHOOSING[name], 5 * jnp.eye(3)[jnp.array([0, 0, 0, 1, 1, 1, 2, 2])]
    bias = jnp.array([0.02, -0.03, 0.01])
    expected = router.update(bias, router(routers.KEY, logits, bias))
    found = router.update(bias, router(routers.KEY, padded(logits), bias, mask=MASK))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    counted = router.update(bias, router(routers.KEY, padded(logits, 0.0), bias))  # a wrong variant
    assert np.abs(found - counted).max() > 1e-4
    nobody = router(routers.KEY, padded(logits), bias, mask=np.zeros(11, bool))
    np.testing.assert_array_equal(router.update(bias, nobody), bias)


DRAWS = 20_000
FALSE_FAIL = 1e-6  # of every call of `check`: two-sided z-scores, Bonferroni over all cells


def check(router, capacity, mask=MASK):
    """E[w 1(z = j)] = p for those that take part, who alone fill the places."""
    logits = padded(routers.logits())
    routing = jax.vmap(lambda key: router(key, logits, mask=mask))(jax.random.split(jax.random.key(2), DRAWS))
    loads = jax.vmap(load)(routing)
    assert loads.max() <= capacity
    check_absent(jax.tree.map(lambda x: x[0], routing))
    hit = np.asarray(routing.expert)[..., None] == np.arange(3)
    weighted = (np.asarray(routing.weight, np.float64)[..., None] * hit)[:, MASK]
    z = (weighted.mean(axis=0) - routers.softmax(routers.logits())) / (weighted.std(axis=0) / np.sqrt(DRAWS))
    assert np.abs(z).max() < norm.isf(FALSE_FAIL / (2 * z.size))


@pytest.mark.parametrize(
    ("router", "capacity"), [(IndependentRouter(), 8), (SkipRouter(2), 2), (GumbelMatchingRouter(3), 3)], ids=str
)
def test_weights_are_unbiased(router, capacity):
    check(router, capacity)
    if capacity == 2:  # a wrong variant: padding that takes places
        with pytest.raises(AssertionError):
            check(lambda key, logits, mask: router(key, jnp.where(mask[:, None], logits, 0.0)), 2)


def test_places_of_a_matching_are_for_those_that_take_part():
    """At 9 places for 8 of 11 datapoints; all 11 would not fit."""
    logits = padded(routers.logits())
    with pytest.raises(ValueError, match=r"room for 9 datapoints .* there are 11"):
        GumbelMatchingRouter(3)(routers.KEY, jnp.zeros((11, 3)))
    with pytest.raises(ValueError, match=r"room for 6 datapoints .* there are 8"):
        GumbelMatchingRouter(2)(routers.KEY, logits, mask=MASK)
    traced = jax.jit(lambda mask: GumbelMatchingRouter(2)(routers.KEY, logits, mask=mask))(MASK)
    assert (np.asarray(traced.expert) == np.where(MASK, -1, 3)).all()
    assert np.isnan(np.asarray(traced.weight)[MASK]).all()
    tokens = jnp.ones((11, 2))
    found = jax.jit(lambda routing: combine(dispatch(tokens, routing, 2), routing))(traced)
    assert np.isnan(np.asarray(found)[MASK]).all()
    assert (np.asarray(found)[~MASK] == 0).all()


@pytest.mark.parametrize("name", routers.ALL)
def test_dispatch_and_combine_pass_them_by(name):
    routing = routers.ALL[name](routers.KEY, padded(routers.logits()), mask=MASK)
    tokens = jnp.arange(1.0, 12.0)
    buffers = dispatch(tokens, routing, 8)
    assert set(np.asarray(buffers).ravel()) <= {0, *np.asarray(tokens)[MASK]}
    assert (np.asarray(combine(buffers, routing))[~MASK] == 0).all()


@pytest.mark.parametrize("mask", [[True] * 11, np.ones(11, bool), jnp.ones(11, bool)], ids=["list", "numpy", "jax"])
def test_all_taking_part_is_no_mask(mask):
    logits = jnp.asarray(padded(routers.logits(), 0.5))
    for router in (SkipRouter(2), GumbelMatchingRouter(4), routers.TOP_ONE["switch"]):
        plain, masked = router(routers.KEY, logits), router(routers.KEY, logits, mask=mask)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), masked, plain)


@pytest.mark.parametrize("mask", [np.ones(10, bool), np.ones((11, 1), bool), np.ones(11), True, np.ones((2, 11), bool)])
def test_bad_mask(mask):
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(11,\), true for the datapoints that take part"):
        SkipRouter(2)(routers.KEY, jnp.zeros((11, 3)), mask=mask)


def test_row_of_minus_infinity_says_what_to_use():
    with pytest.raises(ValueError, match=r"forbids every expert \(-inf\) for datapoint \(1,\); .* left out by mask"):
        SkipRouter(2)(routers.KEY, jnp.array([[0.0, 1.0], [-jnp.inf, -jnp.inf]]))


def test_leading_axes_as_one_batch():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 3))
    with pytest.raises(ValueError, match=r"as_one_batch makes one batch of leading axes, jax\.vmap many"):
        SkipRouter(2)(routers.KEY, logits)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool)
    for router in (SkipRouter(1), GumbelMatchingRouter(2), routers.ALL["expert_choice"]):
        found = as_one_batch(router)(routers.KEY, logits, mask=mask)
        expected = router(routers.KEY, logits.reshape(8, 3), mask=mask.reshape(8))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    biased = as_one_batch(routers.TOP_ONE["loss_free"])(routers.KEY, logits, jnp.array([9.0, 0.0, 0.0]))
    assert (biased.expert == 0).all()


@pytest.mark.parametrize(
    ("arguments", "expected"), [((100, 8), 13), ((100, 10, 1.1), 11), ((7, 2, 1.0), 4), ((3, 4, 0.5), 1), ((10, 5), 2)]
)
def test_capacity_for_rounds_up(arguments, expected):
    assert capacity_for(*arguments) == expected


@pytest.mark.parametrize("arguments", [(0, 1), (4, 0), (4, 2, 0.0), (4, 2, float("inf")), (4, 2, float("nan"))])
def test_capacity_for_bad_arguments(arguments):
    with pytest.raises(ValueError, match=r"num_datapoints|num_experts|factor"):
        capacity_for(*arguments)
