"""The floor of the weighted draws: what they are drawn from, weights that undo it, lighter tails, bad values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter
from tests.randomness import z_limit
from tests.routing import routers

DRAWS = 20_000
MADE = {
    "independent": lambda floor, **options: IndependentRouter(floor=floor),
    "skip": lambda floor, **options: SkipRouter(3, floor=floor, **options),
    "gumbel_matching": lambda floor, **options: GumbelMatchingRouter(3, floor=floor, **options),
}


def z_and_limit(router, logits, weight=lambda routing: routing.weight):
    """Largest z-score of the means of w 1(z = j) against p, and its limit."""
    keys = jax.random.split(routers.KEY, DRAWS)
    routing = jax.jit(jax.vmap(router, (0, None)))(keys, logits)
    terms = np.asarray(weight(routing))[..., None] * (np.asarray(routing.expert)[..., None] == np.arange(3))
    error = terms.std(axis=0) / np.sqrt(DRAWS)
    p = routers.softmax(logits)
    z = np.where(error > 0, (terms.mean(axis=0) - p) / np.where(error > 0, error, 1), np.where(p > 1e-6, np.inf, 0))
    return np.abs(z).max(), z_limit(p.size)


@pytest.mark.each_choice
@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("forbidden", [False, True])
def test_weights_undo_the_floor(name, forbidden):
    """Means over 20,000 draws; false-fail rate 1e-6. Without `p / p'`, the mistake to make, they are far off."""
    logits = routers.forbidding() if forbidden else routers.logits(scale=2.0)
    router = MADE[name](0.3)
    z, limit = z_and_limit(router, logits)
    assert z < limit

    def without(routing):
        p, n_allowed = jnp.exp(routing.log_prob), np.isfinite(np.asarray(logits)).sum(axis=1)
        return routing.weight * (0.7 * p + 0.3 / n_allowed) / p

    z, _ = z_and_limit(router, logits, without)
    assert z > 2 * limit


def test_what_is_drawn_is_floored():
    """Frequencies of independent draws are those of (1 - floor) p + floor / allowed; the forbidden are never drawn."""
    logits = routers.forbidding()
    keys = jax.random.split(routers.KEY, DRAWS)
    expert = np.asarray(jax.jit(jax.vmap(IndependentRouter(floor=0.5), (0, None)))(keys, logits).expert)
    allowed = np.isfinite(np.asarray(logits))
    expected = np.where(allowed, 0.5 * routers.softmax(logits) + 0.5 / allowed.sum(axis=1, keepdims=True), 0)
    share = (expert[..., None] == np.arange(3)).mean(axis=0)
    assert (share[~allowed] == 0).all()
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    limit = z_limit(expected.size)
    assert (np.abs(share - expected) <= limit * error + 1e-12).all()
    assert np.abs(share - routers.softmax(logits)).max() > 5 * limit * error.max()


def test_a_floor_bounds_weights_that_had_wild_tails():
    """Six of eight datapoints want an expert of three places; some of them nearly as much as the others."""
    logits = jnp.array([[12.0, 0.0, 0.0]] * 5 + [[5.0, 0.0, 0.0]] + [[0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    keys = jax.random.split(routers.KEY, 4000)

    def mean_square(floor):
        router = GumbelMatchingRouter(3, floor=floor)
        return float(jnp.mean(jax.jit(jax.vmap(router, (0, None)))(keys, logits).weight ** 2))

    assert mean_square(0.1) < mean_square(0.0) / 10
    independent = jax.vmap(IndependentRouter(floor=0.1), (0, None))(keys, logits).weight
    assert independent.max() <= 1 / 0.9 + 1e-5


@pytest.mark.each_choice
@pytest.mark.parametrize("name", MADE)
def test_no_floor_is_the_plain_process(name, x64):
    logits = routers.logits()
    plain = MADE[name](0.0)(routers.KEY, logits)
    if name == "independent":
        assert (plain.weight == 1).all()
    tiny = MADE[name](1e-12)(routers.KEY, logits)
    np.testing.assert_array_equal(plain.expert, tiny.expert)
    np.testing.assert_allclose(plain.weight, tiny.weight, rtol=1e-5)


@pytest.mark.parametrize("name", MADE)
def test_gradients_are_those_of_the_router_alone(name):
    logits = routers.logits()
    for field in ("log_prob", "weight"):
        gradient = jax.jit(jax.grad(lambda a, field=field: getattr(MADE[name](0.3)(routers.KEY, a), field).sum()))(
            logits
        )
        if field == "weight":
            assert (gradient == 0).all()
        else:
            expert = MADE[name](0.3)(routers.KEY, logits).expert
            np.testing.assert_allclose(gradient, np.eye(3)[expert] - routers.softmax(logits), atol=1e-6)


@pytest.mark.parametrize("name", ["skip", "gumbel_matching"])
def test_absent_and_uncorrected(name):
    mask = jnp.arange(8) < 6
    routing = MADE[name](0.2)(routers.KEY, routers.logits(), mask=mask)
    assert (routing.weight[~mask] == 0).all()
    ones = MADE[name](0.2, corrected=False)(routers.KEY, routers.logits())
    np.testing.assert_array_equal(ones.weight, ones.kept)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("floor", [-0.1, 1.0, 2, float("nan")])
def test_bad_floors(name, floor):
    with pytest.raises(ValueError, match="floor must be at least 0 and below 1"):
        MADE[name](floor)
