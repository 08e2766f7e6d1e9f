"""Draws without replacement: exact weights against all orders, both limits, what is unbiased and what is not."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.estimators import exact_loss, leave_one_out, score_function_loss
from gumbel_moe.routing import SkipRouter, draw_without_replacement, load
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value
from tests.routing.several import probability_of_set

KEY = jax.random.key(4)
# The test of bias: 20,000 draws; an unbiased estimator fails with probability 1e-6, and seeds are fixed.
DRAWS = {"draws": 5000, "chains": 4}
N, K = 6, 4
LOGITS = 1.5 * jax.random.normal(jax.random.key(0), (N, K))
LOSSES = jax.random.normal(jax.random.key(1), (N, K)) + jnp.arange(K)


@pytest.mark.parametrize("m", [1, 3])
def test_weights_by_all_orders(m):
    """Of more numbers of draws and experts, what the weights are made of: `test_unordered_set.py`."""
    with jax.enable_x64(True):
        logits = 2 * jax.random.normal(jax.random.key(m), (40, 5))
        routing = draw_without_replacement(KEY, logits, m)
        p = np.exp(np.asarray(routing.log_probs[0]))
        experts, weights = np.asarray(routing.expert).T, np.asarray(routing.weight).T
    for row, drawn, found in zip(p, experts, weights, strict=True):
        whole = probability_of_set(row, drawn)
        for expert, weight in zip(drawn, found, strict=True):
            rest = np.delete(row, expert) / (1 - row[expert])
            others = [other - (other > expert) for other in drawn if other != expert]
            np.testing.assert_allclose(weight, m * row[expert] * probability_of_set(rest, others) / whole, rtol=1e-9)


def test_all_experts_leave_nothing_to_chance():
    routing = draw_without_replacement(KEY, LOGITS, K)
    mean = jnp.zeros((N, K)).at[jnp.arange(N), routing.expert].add(routing.weight / K)
    np.testing.assert_allclose(mean, jax.nn.softmax(LOGITS), rtol=1e-5)


def test_sets_are_drawn_as_often_as_they_should():
    logits, draws = LOGITS[:1], 20_000
    experts = jax.vmap(lambda key: draw_without_replacement(key, logits, 2).expert[:, 0])(jax.random.split(KEY, draws))
    p = np.asarray(jax.nn.softmax(logits[0]), np.float64)
    sets = list(itertools.combinations(range(K), 2))
    probs = [probability_of_set(p, pair) for pair in sets]
    assert chisquare_p_value(np.sort(experts, axis=1), np.array(sets), probs) > FALSE_FAIL_RATE
    # Either draw gets either of the two experts: not the first of them more often.
    assert chisquare_p_value(experts[:, :1] < experts[:, 1:], np.array([[False], [True]]), [0.5, 0.5]) > FALSE_FAIL_RATE
    independent = [2 * p[a] * p[b] for a, b in sets]  # a wrong variant
    assert chisquare_p_value(np.sort(experts, axis=1), np.array(sets), independent / np.sum(independent)) < 1e-9


def estimate(num_draws, capacity, baseline=1.5, weight=lambda routings: routings.weight, draw=slice(None)):
    def loss(logits, key):
        routings = draw_without_replacement(key, logits, num_draws, capacity=capacity)
        routings = jax.tree.map(lambda a: a[draw], routings._replace(weight=weight(routings)))
        losses = jnp.take_along_axis(LOSSES.T, routings.expert.clip(0, K - 1), axis=0)
        subtracted = leave_one_out(routings.weight, losses) if baseline is None else jnp.full(losses.shape, baseline)
        return jax.vmap(score_function_loss)(routings, losses, subtracted).mean()

    return jax.jit(lambda key: jax.grad(loss)(LOGITS, key))


EXACT = jax.jit(jax.grad(exact_loss))(LOGITS, LOSSES)


@pytest.mark.parametrize(
    ("num_draws", "capacity"),
    [*(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 2), (2, None), (3, (1, 2, 2, 2))]), (2, 2)],
)
def test_unbiased(num_draws, capacity):
    assert check_unbiased(estimate(num_draws, capacity), EXACT, KEY, **DRAWS).passed


def test_each_draw_by_itself_is_unbiased():
    assert check_unbiased(estimate(2, 2, draw=slice(1, 2)), EXACT, KEY, **DRAWS).passed


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": lambda routings: (routings.weight != 0).astype(jnp.float32)},
        {"weight": lambda routings: 2 * jnp.exp(routings.log_prob) * routings.kept},
        {"baseline": None},
    ],
    ids=["no weights", "the probability alone", "leave one out"],
)
def test_what_is_biased(wrong):
    assert not check_unbiased(estimate(2, None, **wrong), EXACT, KEY, **DRAWS).passed


def test_less_noise_than_two_independent_draws():
    def independent(key):
        def loss(logits):
            routings = jax.vmap(SkipRouter(N), (0, None))(jax.random.split(key), logits)
            losses = jnp.take_along_axis(LOSSES.T, routings.expert, axis=0)
            return jax.vmap(score_function_loss, (0, 0, None))(routings, losses, 1.5).mean()

        return jax.grad(loss)(LOGITS)

    keys = jax.random.split(KEY, 2000)
    one, other = (jnp.var(jax.lax.map(f, keys, batch_size=500), axis=0).sum() for f in (independent, estimate(2, None)))
    assert other < 0.5 * one


@pytest.mark.parametrize("capacity", [1, 2, (2, 1, 1, 3)])
def test_no_expert_twice_nor_beyond_its_capacity(capacity):
    routing = draw_without_replacement(KEY, LOGITS, 3, capacity=capacity)
    assert all(len(set(column)) == 3 for column in np.asarray(routing.expert).T.tolist())
    for number in range(3):
        assert (load(jax.tree.map(lambda a, number=number: a[number], routing)) <= jnp.asarray(capacity)).all()
    np.testing.assert_array_equal(routing.weight == 0, ~routing.kept)


def test_fewer_experts_than_draws():
    logits = jnp.array([[0.0, 1.0, -jnp.inf, -jnp.inf], [-jnp.inf, 0.0, -jnp.inf, -jnp.inf], [0.0, 0.0, 0.0, 0.0]])
    routing = draw_without_replacement(KEY, logits, 3)
    assert routing.kept.sum(axis=0).tolist() == [2, 1, 3]
    mean = jnp.zeros((3, 4)).at[jnp.arange(3), routing.expert].add(routing.weight / 3)
    np.testing.assert_allclose(mean[:2], jax.nn.softmax(logits)[:2], rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda a: draw_without_replacement(KEY, a, 3).log_prob.sum(where=routing.kept)))(logits)
    assert jnp.isfinite(gradient).all()


def test_sharp_logits():
    logits = jnp.array([[0.0, -120.0, -121.0], [60.0, 0.0, -60.0]])
    routing = draw_without_replacement(KEY, logits, 2)
    top = routing.expert == 0
    np.testing.assert_allclose(routing.weight[top], 2.0, rtol=1e-6)
    assert (routing.weight[~top] < 1e-20).all()


def test_a_mask_leaves_datapoints_out():
    mask = jnp.array([True, False, True, True, False, True])
    logits = jnp.where(mask[:, None], LOGITS, jnp.nan)
    routing = draw_without_replacement(KEY, logits, 2, capacity=1, mask=mask)
    assert (routing.expert[:, ~mask] == K).all()
    assert not routing.kept[:, ~mask].any()
    assert jnp.isfinite(routing.weight).all()
    assert routing.kept.sum() > 0


def test_transformations():
    plain = draw_without_replacement(KEY, LOGITS, 2, capacity=2)
    jitted = jax.jit(lambda key, a: draw_without_replacement(key, a, 2, capacity=2))(KEY, LOGITS)
    both = jax.vmap(lambda a: draw_without_replacement(KEY, a, 2, capacity=2))(jnp.stack([LOGITS, 2 * LOGITS]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, jitted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-6), plain, both)
    nothing = jax.jit(lambda a: draw_without_replacement(KEY, a, 2))(LOGITS.at[0, 0].set(jnp.nan))
    assert jnp.isnan(nothing.weight[:, 0]).all()
    assert math.isfinite(nothing.weight[0, 1])


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_draws must be at most 4 for 4 experts, got 5"):
        draw_without_replacement(KEY, LOGITS, 5)
    with pytest.raises(ValueError, match="num_draws must be at most 8 for 20 experts, got 9"):
        draw_without_replacement(KEY, jnp.zeros((3, 20)), 9)
    with pytest.raises(ValueError, match="num_draws must be a positive int"):
        draw_without_replacement(KEY, LOGITS, 0)
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        draw_without_replacement(KEY, LOGITS, 2, capacity=0)
    with pytest.raises(ValueError, match="forbids every expert"):
        draw_without_replacement(KEY, LOGITS.at[0].set(-jnp.inf), 2)
