"""Weights of a set drawn without replacement, and of pairs in it: by brute force over orders, and in the mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.routing import IndependentRouter, SkipRouter
from gumbel_moe.routing._assemble import assemble
from gumbel_moe.routing._unordered_set import set_weights
from tests.routing import routers
from tests.routing.several import probability_of_set

K = 5
weights_of = jax.jit(set_weights)


def problems():
    """Probabilities, and those to draw from: soft, sharp, with a floor, with forbidden experts, with both."""
    rng = np.random.default_rng(0)
    for scale, floor, forbidden in [(0.5, 0, 0), (4.0, 0, 0), (2.0, 0.3, 0), (1.0, 0, 1), (2.0, 0.2, 2)]:
        p = np.exp(scale * rng.normal(size=K)) * (np.arange(K) >= forbidden)
        p /= p.sum()
        yield p, (1 - floor) * p + floor * (p > 0) / (K - forbidden), floor


def rest(p, experts, taken):
    """That the rest of a set is drawn from the experts without those `taken`."""
    left = np.where(np.isin(np.arange(K), taken), 0, p)
    others = [j for j in experts if j not in taken]
    return probability_of_set(left / left.sum(), others) if others else 1.0


def every_set(p, drawn_from, m):
    """All sets `(s, m)`, with `K` in the places that are left where too few experts are allowed, and how likely."""
    allowed = np.flatnonzero(p).tolist()
    members = list(itertools.combinations(allowed, min(m, len(allowed))))
    experts = np.array([[*each, *[K] * (m - len(each))] for each in members], np.int32)
    return experts, np.array([probability_of_set(drawn_from, each) for each in members])


@pytest.mark.parametrize(("m", "tolerance"), [(2, 1e-12), (3, 1e-12), (4, 1e-12), (5, 1e-12), (3, 2e-6)])
def test_against_all_orders_and_in_the_mean(m, tolerance):
    cases = [(p, drawn_from, floor, *every_set(p, drawn_from, m)) for p, drawn_from, floor in problems()]
    sizes = [len(experts) for *_, experts, _ in cases]
    with np.errstate(divide="ignore"):
        tables = [np.log(np.repeat([case[i] for case in cases], sizes, axis=0)) for i in range(2)]
    with jax.enable_x64(tolerance < 1e-6):
        tables = [jnp.asarray(table, jnp.result_type(float)) for table in tables]
        found = weights_of(*tables, jnp.concatenate([case[3] for case in cases]))
    ends = np.cumsum(sizes)[:-1]
    for case, weights, pairs in zip(cases, *(np.split(np.asarray(part), ends) for part in found), strict=True):
        p, drawn_from, floor, sets, probability = case
        single, double, p = np.zeros(K + 1), np.zeros((K + 1, K + 1)), np.append(p, 0)
        for experts, weight, pair, chance in zip(sets, weights, pairs, probability, strict=True):
            members = [j for j in experts if j < K]
            for (r, j), (s, other) in itertools.product(enumerate(experts), repeat=2):
                nobody = max(j, other) == K
                expected = 0 if nobody or r == s else p[j] * p[other] * rest(drawn_from, members, [j, other]) / chance
                np.testing.assert_allclose(pair[r, s], expected, atol=tolerance)
                double[j, other] += chance * pair[r, s]
            expected = [0 if j == K else p[j] * rest(drawn_from, members, [j]) / chance for j in experts]
            np.testing.assert_allclose(weight, expected, atol=tolerance)
            single[experts] += chance * weight
        np.testing.assert_allclose(single, p, atol=tolerance)
        np.testing.assert_allclose(double, np.outer(p, p) * (1 - np.eye(K + 1)), atol=tolerance)
        assert (floor > 0 and m < K) or np.allclose(weights.sum(axis=1), 1, atol=tolerance)
        assert weights.max() <= 1 / (1 - floor) + tolerance
        assert pairs.max() <= 1 / (1 - floor) ** 2 + tolerance


@pytest.mark.parametrize(("m", "baseline"), [(2, "none"), (3, "table"), (5, "table")])
def test_gradient_in_the_mean_over_all_sets(m, baseline):
    """Exactly unbiased with pairs and without, as the sum over all sets shows; for all experts each set alone is."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        logits, losses, table = (jnp.asarray(rng.normal(size=K) + shift) for shift in (0, 2, 2))
        p = np.asarray(jax.nn.softmax(logits))
        experts, chance = every_set(p, 0.7 * p + 0.3 / K, m)
        n = len(experts)
        drawn_from = jnp.log(jnp.tile(0.7 * p + 0.3 / K, (n, 1)))
        given = None if baseline == "none" else jnp.tile(table, (n, 1))

        def loss(a, pairs):
            weight, pair_weight = set_weights(jax.nn.log_softmax(a), drawn_from, jnp.asarray(experts))
            routing = assemble(a, jnp.asarray(experts), None, weight=weight, pair_weight=pair_weight)
            return n * score_function_loss(routing, losses[experts], given, pairs=pairs)

        exact = jax.jit(jax.grad(lambda a: exact_loss(a[None], losses[None])))(logits)
        for pairs in (False, True):
            found = jax.jit(jax.grad(loss), static_argnums=1)(jnp.tile(logits, (n, 1)), pairs)
            np.testing.assert_allclose(chance @ np.asarray(found), exact, atol=1e-12)


@pytest.mark.parametrize(
    "scale", [30.0, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (300.0, 1e4)), 1e38]
)
def test_sharp_logits(scale):
    """Finite, bounded, and of sum 1; one set of draws, of eight experts among ten."""
    logits = jnp.clip(scale * routers.logits(16, 10), -3e38, 3e38)
    for m in (2, 8):
        routing = IndependentRouter(experts_per_datapoint=m)(routers.KEY, logits)
        np.testing.assert_allclose(routing.weight.sum(axis=1), 1, rtol=1e-5)
        assert ((routing.pair_weight >= 0) & (routing.pair_weight <= 1)).all()
    floored = SkipRouter(9, floor=0.1, experts_per_datapoint=8)(routers.KEY, logits)
    assert jnp.isfinite(floored.weight).all()
    assert jnp.isfinite(floored.pair_weight).all()
