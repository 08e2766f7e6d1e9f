"""`score_function_loss` and `exact_loss`: unbiased value and gradient, baselines, checks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import SkipAssignment
from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.routing import (
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    Routing,
    SkipRouter,
    SwitchRouter,
)
from tests import randomness

N, K = 12, 3


def problem(x64=False):
    """Router and expert parameters of a small mixture, and the losses of all experts as a function of them."""
    key = jax.random.split(jax.random.key(0), 4)
    dtype = jnp.float64 if x64 else jnp.float32
    x = jax.random.normal(key[0], (N, 2), dtype)
    y = jnp.sin(2 * x[:, 0])
    params = {
        "router": jax.random.normal(key[1], (2, K), dtype),
        "experts": jax.random.normal(key[2], (2, K), dtype),
    }

    def logits(params):
        return x @ params["router"]

    def all_losses(params):
        return (x @ params["experts"] - y[:, None]) ** 2

    return params, logits, all_losses


def estimate(router, baseline=None):
    params, logits, all_losses = problem()

    def loss(params, key):
        routing = router(key, logits(params))
        losses = jnp.take_along_axis(all_losses(params), routing.expert[:, None], axis=1)[:, 0]
        return score_function_loss(routing, losses, baseline)

    return params, loss


def largest_z(router, baseline=None, draws=20_000):
    """Largest z-score over value and gradient, against enumeration, and the limit for the false-fail rate."""
    params, loss = estimate(router, baseline)
    _, logits, all_losses = problem()
    exact = jax.jit(jax.value_and_grad(lambda p: exact_loss(logits(p), all_losses(p))))(params)
    drawn = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, jax.random.split(jax.random.key(1), draws))
    return randomness.largest_z(drawn, exact)


# The weights of Gumbel-Matching have a tail that is the lighter the larger the capacities: 4 places per expert are
# enough for the normal approximation with this many draws.
ROUTERS = {
    "independent": IndependentRouter(),
    "skip": SkipRouter(4),
    "skip-unequal": SkipRouter((2, 3, 6)),
    "gumbel-matching": GumbelMatchingRouter(4),
}
# A program for each pair takes seconds to compile. What the loss does depends on the form of the baseline alone.
QUICK = {
    "none": ("skip",),
    "scalar": ("gumbel-matching",),
    "datapoint": ("independent",),
    "expert": ("skip-unequal",),
}


@pytest.mark.parametrize(
    ("baseline", "router"),
    [
        pytest.param(
            baseline, ROUTERS[name], id=f"{baseline}-{name}", marks=[] if name in QUICK[baseline] else pytest.mark.slow
        )
        for baseline in QUICK
        for name in ROUTERS
    ],
)
def test_value_and_gradient_are_unbiased(router, baseline):
    rng = np.random.default_rng(0)
    shape = {"none": None, "scalar": (), "datapoint": (N,), "expert": (N, K)}[baseline]
    values = None if shape is None else jnp.asarray(rng.normal(size=shape), jnp.float32)
    z, limit = largest_z(router, values)
    assert z < limit


@pytest.mark.parametrize(
    "router",
    [SkipRouter(4, corrected=False), GumbelMatchingRouter(4, corrected=False), SwitchRouter(4)],
    ids=["skip", "gumbel-matching", "switch"],
)
def test_uncorrected_routers_are_rejected(router):
    z, limit = largest_z(router)
    assert z > limit


@pytest.mark.parametrize(
    "baseline", [*(pytest.param(b, marks=pytest.mark.slow) for b in (None, 0.7)), "datapoint", "expert"]
)
def test_exact_expectation_over_all_outcomes(baseline):
    """Skip, summed over every outcome with its probability: no sampling error, float64."""
    with jax.enable_x64(True):
        n, k, capacity = 3, 2, 1
        rng = np.random.default_rng(0)
        a, f = jnp.asarray(rng.normal(size=(n, k))), jnp.asarray(rng.normal(size=(n, k)))
        b = {"datapoint": rng.normal(size=n), "expert": rng.normal(size=(n, k))}.get(baseline, baseline)
        d = SkipAssignment(a, capacity, validate_args=False)
        values = np.array(list(itertools.product(range(-k, k), repeat=n)), np.int32)

        def one(a, f, value):
            expert, log_probs = d.expert(value), jax.nn.log_softmax(a)
            log_prob = jnp.take_along_axis(log_probs, expert[:, None], axis=1)[:, 0]
            weight = d.importance_weights(value)
            routing = Routing(expert, d.kept(value), weight, log_prob, jnp.ones(n), log_probs)
            losses = jnp.take_along_axis(f, expert[:, None], axis=1)[:, 0]
            return score_function_loss(routing, losses, b)

        each = jax.vmap(jax.value_and_grad(one, (0, 1)), (None, None, 0))(a, f, values)
        probs = jnp.exp(jax.jit(d.log_prob)(values))
        expected = jax.tree.map(lambda x: jnp.tensordot(probs, x, 1), each)
        truth = jax.jit(jax.value_and_grad(exact_loss, (0, 1)))(a, f)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), expected, truth)


@pytest.mark.slow
def test_good_baselines_reduce_the_variance():
    params, logits, all_losses = problem()
    keys = jax.random.split(jax.random.key(2), 2000)
    p = jax.nn.softmax(logits(params))

    def variance(baseline):
        _, loss = estimate(IndependentRouter(), baseline)
        gradient = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, keys)
        return float(jnp.var(gradient["router"], axis=0).sum())

    per_datapoint = variance(jnp.sum(p * all_losses(params), axis=1))
    assert per_datapoint < 0.9 * variance(None)
    assert variance(all_losses(params)) < 1e-8  # the losses themselves: the score term is exact


def test_losses_of_skipped_datapoints_are_ignored():
    logits = jnp.zeros((6, 2))

    def loss(logits, poison):
        routing = SkipRouter(1)(jax.random.key(0), logits)
        return score_function_loss(routing, jnp.where(routing.kept, 1.0, poison))

    clean = jax.jit(jax.value_and_grad(loss))(logits, 0.0)
    poisoned = jax.jit(jax.value_and_grad(loss))(logits, jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, clean, poisoned)
    assert jnp.isfinite(clean[0])


def test_baseline_is_a_constant():
    def loss(b):
        routing = IndependentRouter()(jax.random.key(0), jnp.zeros((4, 2)))
        return score_function_loss(routing, jnp.ones(4), b)

    assert jax.jit(jax.grad(loss))(0.5) == 0


def test_float64_and_forbidden_experts():
    with jax.enable_x64(True):
        logits = jnp.zeros((6, 2)).at[0, 1].set(-jnp.inf)

        def loss(a):
            routing = GumbelMatchingRouter(3)(jax.random.key(0), a)
            return score_function_loss(routing, jnp.arange(6.0), jnp.ones((6, 2)))

        value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
        assert value.dtype == jnp.float64
        assert jnp.isfinite(gradient).all()


def test_bad_arguments():
    key, logits = jax.random.key(0), jnp.zeros((4, 2))
    routing = IndependentRouter()(key, logits)
    with pytest.raises(ValueError, match=r"losses must have shape \(4,\)"):
        score_function_loss(routing, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="baseline must be a scalar or have shape"):
        score_function_loss(routing, jnp.ones(4), jnp.ones(2))
    with pytest.raises(TypeError, match="one expert per datapoint"):
        score_function_loss(ExpertChoiceRouter(2)(key, logits), jnp.ones(4))
    with pytest.raises(ValueError, match="all_losses must have the shape of logits"):
        exact_loss(logits, jnp.ones(4))


def test_exact_loss():
    rng = np.random.default_rng(0)
    logits, losses = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(exact_loss(logits, losses), (p * losses).sum(axis=-1).mean(axis=-1), rtol=1e-5)
    barred = jnp.array([[0.0, -jnp.inf]])
    assert exact_loss(barred, jnp.array([[2.0, jnp.inf]])) == 2


def test_no_datapoints():
    """Nothing is lost, and nothing depends on the logits."""
    logits, losses = jnp.zeros((0, 2)), jnp.zeros(0)
    routing = SkipRouter(2)(jax.random.key(0), logits)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: score_function_loss(routing, x)))(losses)
    assert (float(value), gradient.shape) == (0, (0,))
    value, gradient = jax.jit(jax.value_and_grad(lambda a: exact_loss(a, logits)))(logits)
    assert (float(value), gradient.shape) == (0, (0, 2))
    value, gradient = jax.jit(jax.value_and_grad(lambda c: score_function_loss(routing, c * losses)))(jnp.ones(()))
    assert (float(value), float(gradient)) == (0, 0)
