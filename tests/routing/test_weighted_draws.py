"""The property all else rests on: E[w 1(z = j)] = p[i, j], and that the test of it can fail."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, Routing, SkipRouter, SwitchRouter
from tests.routing import routers

SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
DRAWS = 30_000
# Chance that a correct router fails one call of `check`: two-sided z-scores, Bonferroni over all n k cells. A cell's
# standard error is at most about 0.005, so that a bias of 0.03 is found for certain, one of 0.01 often.
FALSE_FAIL = 1e-6
ROUNDING = 1e-6  # of float32 weights; the least standard error, for cells without spread


def check(router, logits, seed=0):
    routing = jax.vmap(router, (0, None))(jax.random.split(jax.random.key(seed), DRAWS), logits)
    hit = np.asarray(routing.expert)[..., None] == np.arange(logits.shape[1])
    weighted = np.asarray(routing.weight, np.float64)[..., None] * hit
    error = np.maximum(weighted.std(axis=0) / np.sqrt(DRAWS), ROUNDING)
    z = (weighted.mean(axis=0) - routers.softmax(logits)) / error
    assert np.abs(z).max() < norm.isf(FALSE_FAIL / (2 * z.size))


@pytest.mark.parametrize(
    "router",
    [
        IndependentRouter(),
        SLOWLY(SkipRouter(1)),
        SkipRouter(2),
        SLOWLY(SkipRouter(4)),
        SLOWLY(SkipRouter(8)),
        SkipRouter((1, 4, 2)),
        GumbelMatchingRouter((3, 3, 2)),
        SLOWLY(GumbelMatchingRouter((1, 2, 5))),
        GumbelMatchingRouter(3),
        SLOWLY(GumbelMatchingRouter((2, 6, 4))),
        SLOWLY(GumbelMatchingRouter(8)),
    ],
    ids=str,
)
def test_unbiased(router):
    check(router, routers.logits())


@pytest.mark.slow
@pytest.mark.parametrize("router", [SkipRouter(2), GumbelMatchingRouter((3, 2, 3))], ids=str)
def test_unbiased_in_float64(router):
    with jax.enable_x64(True):
        check(router, routers.logits(seed=1))


@pytest.mark.parametrize("router", [IndependentRouter(), SkipRouter(2), GumbelMatchingRouter(4)], ids=str)
def test_unbiased_with_forbidden_experts(router):
    check(router, routers.forbidding())


def drop_the_last(key, logits):
    """Skip with the right weights, but the surplus dropped by position instead of at random."""
    routing = IndependentRouter()(key, logits)
    rank = jnp.cumsum(routing.expert[:, None] == jnp.arange(3), axis=0)[jnp.arange(8), routing.expert]
    drawn = jnp.sum(routing.expert[:, None] == routing.expert, axis=1)
    return routing._replace(weight=jnp.where(rank <= 2, drawn / jnp.minimum(drawn, 2), 0.0))


def weight_by_capacity(key, logits):
    """Skip with n / c where it should be n / min(n, c)."""
    routing: Routing = SkipRouter(2)(key, logits)
    drawn = jnp.sum(routing.expert[:, None] == routing.expert, axis=1)
    return routing._replace(weight=jnp.where(routing.kept, drawn / 2, 0.0))


@pytest.mark.parametrize(
    "router",
    [
        SkipRouter(2, corrected=False),
        GumbelMatchingRouter((3, 3, 2), corrected=False),
        GumbelMatchingRouter(3, corrected=False),
        SwitchRouter(2),
        SwitchRouter(8),
        drop_the_last,
        weight_by_capacity,
    ],
    ids=lambda router: getattr(router, "__name__", str(router)),
)
def test_biased_routers_are_rejected(router):
    with pytest.raises(AssertionError):
        check(router, routers.logits())


def test_uncorrected_variants_draw_the_same_assignments():
    logits = routers.logits()
    for kind, capacity in [(SkipRouter, 2), (GumbelMatchingRouter, 3)]:
        corrected, plain = kind(capacity)(routers.KEY, logits), kind(capacity, corrected=False)(routers.KEY, logits)
        np.testing.assert_array_equal(corrected.expert, plain.expert)
        np.testing.assert_array_equal(corrected.kept, plain.kept)
        np.testing.assert_array_equal(plain.weight, plain.kept)


def test_skip_weights_are_the_inverse_kept_fraction():
    routing = SkipRouter((1, 1, 2))(routers.KEY, routers.logits())
    for j, capacity in enumerate((1, 1, 2)):
        mine = np.asarray(routing.expert) == j
        drawn, kept = mine.sum(), (mine & np.asarray(routing.kept)).sum()
        assert kept == min(drawn, capacity)
        np.testing.assert_allclose(routing.weight[mine & np.asarray(routing.kept)], drawn / max(kept, 1), rtol=1e-6)
        assert (routing.weight[mine & ~np.asarray(routing.kept)] == 0).all()


def test_gumbel_matching_fills_a_tight_capacity():
    routing = GumbelMatchingRouter((5, 1, 2))(routers.KEY, routers.logits())
    assert np.bincount(routing.expert, minlength=3).tolist() == [5, 1, 2]
    assert routing.kept.all()


def test_ample_room_makes_both_processes_independent_draws():
    for router in (SkipRouter(8), GumbelMatchingRouter(8, floor=0)):
        routing = router(routers.KEY, routers.logits())
        np.testing.assert_allclose(routing.weight, 1, rtol=1e-5)
        assert routing.kept.all()
