"""Weights of several experts: E[w 1(j in S)] = p, E[W 1(j, l in S)] = p p', thresholds, and what gets neither."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import exchange_distances, solve_matching
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter
from gumbel_moe.routing._several_draws import log_inclusion
from gumbel_moe.routing._several_matched import thresholds
from gumbel_moe.routing._unordered_set import of_two
from tests.randomness import z_limit
from tests.routing import routers, several
from tests.routing.several import K, N

DRAWS = 20_000  # false-fail rate of every test 1e-6, by Bonferroni over all datapoints and experts, or pairs of them
ROUNDING = 1e-6


def draws(router, logits, seed=0, number=DRAWS):
    routing = jax.vmap(router, (0, None))(jax.random.split(jax.random.key(seed), number), logits)
    hit = np.asarray(routing.expert)[..., None] == np.arange(logits.shape[1])
    return routing, hit


def largest_z(terms, mean):
    error = np.maximum(terms.std(axis=0) / np.sqrt(len(terms)), ROUNDING)
    z = (terms.mean(axis=0) - mean) / error
    return np.abs(z).max(), z_limit(z.size)


ROUTERS = [
    IndependentRouter(experts_per_datapoint=2),
    SkipRouter((2, 3, 8, 4), experts_per_datapoint=3, floor=0.1),
    GumbelMatchingRouter(4, experts_per_datapoint=2),
]
MORE = [
    GumbelMatchingRouter((8, 7, 6, 4), experts_per_datapoint=3, floor=0.0),
    IndependentRouter(experts_per_datapoint=3, floor=0.2),
    SkipRouter((2, 3, 8, 4), experts_per_datapoint=2),
    GumbelMatchingRouter((5, 4, 6, 5), experts_per_datapoint=2, floor=0.0),
    GumbelMatchingRouter(7, experts_per_datapoint=3, floor=0.3),
]


def own_draw(routing):
    """p / q with q from the datapoint's own softmax, as for a draw with replacement."""
    p = np.exp(np.asarray(routing.log_prob))
    return p / (1 - (1 - p) ** p.shape[-1])


WRONG = {
    "no weights": lambda routing: routing.kept,
    "weights of one": lambda routing: np.asarray(routing.kept) / routing.expert.shape[-1],
    "the probability alone": lambda routing: np.exp(routing.log_prob) * routing.kept,
    "with replacement": own_draw,
}


@pytest.mark.parametrize(
    "router", [*ROUTERS, *(pytest.param(router, marks=pytest.mark.slow) for router in MORE)], ids=str
)
def test_unbiased_but_for_wrong_weights(router):
    logits = several.logits()
    routing, hit = draws(router, logits)

    def z_of(weight):
        terms = (np.asarray(weight, np.float64)[..., None] * hit).sum(axis=2)
        return largest_z(terms, routers.softmax(logits))

    z, limit = z_of(routing.weight)
    assert z < limit
    for name, wrong in WRONG.items():
        assert z_of(wrong(routing))[0] > 2 * limit, name


def test_more_experts_than_a_set_may_have():
    """Nine of twelve, with p / q at the next largest score; the wrong variant leaves q out."""
    logits = 0.3 * routers.logits(4, 12)
    routing, hit = draws(IndependentRouter(experts_per_datapoint=9), logits, number=5000)
    p = routers.softmax(logits)
    for wrong, weight in ((False, routing.weight), (True, np.exp(routing.log_prob))):
        z, limit = largest_z((np.asarray(weight, np.float64)[..., None] * hit).sum(axis=2), p)
        assert (z > 2 * limit) if wrong else (z < limit)
    np.testing.assert_array_equal(routing.pair_weight, jax.vmap(of_two)(routing.weight))


@pytest.mark.slow
def test_in_float64_and_with_forbidden_experts():
    with jax.enable_x64(True):
        logits = several.logits(seed=1).at[0, 0].set(-jnp.inf).at[3, 2].set(-jnp.inf)
        routing, hit = draws(GumbelMatchingRouter(5, experts_per_datapoint=2), logits)
        z, limit = largest_z((np.asarray(routing.weight)[..., None] * hit).sum(axis=2), routers.softmax(logits))
        assert z < limit


@pytest.mark.parametrize(
    "router",
    [
        SkipRouter(4, experts_per_datapoint=3, floor=0.2),
        GumbelMatchingRouter((6, 7, 8, 5), experts_per_datapoint=3, floor=0.3),
    ],
    ids=str,
)
def test_weights_of_pairs(router):
    """Of soft logits, so that the tails of Gumbel-Matching's are light enough for a normal limit. Wrong variants: for
    two experts as if they had been drawn apart from each other, p p'; and for a set the products of its weights."""
    logits = 0.3 * several.logits()
    routing, hit = draws(router, logits)
    p = routers.softmax(logits)
    first, second = np.triu_indices(K, 1)
    expected, both = p[:, first] * p[:, second], hit.any(axis=2)

    def z_of(pair_weight):
        each = np.einsum("drlm,drlj,drmk->drjk", np.asarray(pair_weight, np.float64), hit, hit, optimize=True)
        return largest_z(each[..., first, second], expected)

    z, limit = z_of(routing.pair_weight)
    assert z < limit
    assert largest_z(expected * both[..., first] * both[..., second], expected)[0] > 2 * limit
    if isinstance(router, SkipRouter):
        assert z_of(jax.vmap(of_two)(routing.weight))[0] > 2 * limit


def test_all_experts_leave_nothing_to_chance():
    logits = several.logits()
    for router in (
        IndependentRouter(experts_per_datapoint=K),
        GumbelMatchingRouter(N, experts_per_datapoint=K, floor=0),
    ):
        routing = router(routers.KEY, logits)
        np.testing.assert_array_equal(routing.expert, np.tile(np.arange(K), (N, 1)))
        np.testing.assert_allclose(routing.weight, routers.softmax(logits), rtol=1e-6)
        np.testing.assert_allclose(routing.pair_weight, of_two(jnp.asarray(routers.softmax(logits))), rtol=1e-6)


def best_total(scores, capacity, number):
    """By brute force over every datapoint's sets: the best assignment and its total."""
    n, k = scores.shape
    sets = list(itertools.combinations(range(k), number))
    best = (-np.inf, None)
    for choice in itertools.product(sets, repeat=n):
        if (np.bincount(np.ravel(choice), minlength=k) <= capacity).all():
            total = sum(scores[i, list(s)].sum() for i, s in enumerate(choice))
            best = max(best, (total, choice), key=lambda pair: pair[0])
    return best


@pytest.mark.parametrize("capacity", [(2, 2, 2, 2), (4, 2, 1, 3)])
def test_thresholds_by_solving_again(capacity):
    """An expert stays just as long as its score is above the threshold, all else as it is."""
    with jax.enable_x64(True):
        for seed in range(2):
            scores = np.random.default_rng(seed).normal(size=(4, K))
            match = solve_matching(scores, capacity, experts_per_datapoint=2)
            distances = exchange_distances(scores, match.assignment, capacity)
            found = np.asarray(thresholds(jnp.asarray(scores), match.assignment, distances))
            for i in range(2):
                for r, j in enumerate(np.asarray(match.assignment)[i]):
                    for nudge in (-1e-6, 1e-6):
                        moved = scores.copy()
                        moved[i, j] = found[i, r] + nudge if np.isfinite(found[i, r]) else -50.0
                        stays = j in best_total(moved, capacity, 2)[1][i]
                        assert stays == (nudge > 0 or np.isneginf(found[i, r]))


def test_log_inclusion(x64):
    margin = np.array([-700.0, -90.0, -21.0, -19.0, -5.0, 0.0, 2.0, 5.0, np.inf])
    rate = np.exp(margin)
    exact = [
        np.log1p(-np.exp(-r)) if r > 1 else m if m < -30 else np.log(-np.expm1(-r))
        for m, r in zip(margin, rate, strict=True)
    ]
    np.testing.assert_allclose(log_inclusion(jnp.asarray(margin)), exact, rtol=1e-9 if x64 else 3e-6, atol=1e-40)


def test_sharp_logits_stay_finite():
    logits = several.logits(scale=1e4)
    for router in several.WEIGHTED.values():
        routing = router(routers.KEY, logits)
        assert jnp.isfinite(routing.weight).all()
        assert jnp.isfinite(routing.pair_weight).all()
