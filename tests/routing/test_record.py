"""What every router's record promises: shapes, probabilities, gradients, transformations, forbidden experts, NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import ExpertChoiceRouting, Routing, load
from tests.routing import routers

KEY = routers.KEY
one_expert = pytest.mark.parametrize("name", routers.ONE_EXPERT)
every = pytest.mark.parametrize("name", routers.ALL)


@one_expert
def test_fields(name, x64):
    logits = routers.logits()
    routing = routers.ALL[name](KEY, logits)
    assert isinstance(routing, Routing)
    assert routing.expert.dtype == jnp.int32
    assert routing.kept.dtype == bool
    width = jnp.float64 if x64 else jnp.float32
    for field in (routing.expert, routing.kept, routing.weight, routing.log_prob, routing.gate):
        assert field.shape == (8,)
    for field in (routing.weight, routing.log_prob, routing.gate, routing.log_probs):
        assert field.dtype == width
    expected = np.log(routers.softmax(logits))
    tolerance = 1e-12 if x64 else 1e-5
    np.testing.assert_allclose(routing.log_probs, expected, rtol=tolerance)
    np.testing.assert_allclose(routing.log_prob, expected[np.arange(8), routing.expert], rtol=tolerance)
    assert ((routing.weight > 0) == routing.kept).all()
    handled = [int(((np.asarray(routing.expert) == j) & np.asarray(routing.kept)).sum()) for j in range(3)]
    assert load(routing).tolist() == handled
    assert max(handled) <= getattr(routers.ALL[name], "capacity", 8)


@pytest.mark.parametrize("name", routers.WEIGHTED)
def test_weighted_draws_have_gate_one(name):
    assert (routers.ALL[name](KEY, routers.logits()).gate == 1).all()


@one_expert
def test_log_prob_has_the_gradient_of_softmax_and_weight_none(name):
    router, logits = routers.ALL[name], routers.logits()
    routing = router(KEY, logits)

    def total(a):
        routing = router(KEY, a)
        # A gradient of the weights, were there any, would show in the sum.
        return (routing.log_prob + 100 * routing.weight).sum()

    gradient = jax.jit(jax.grad(total))(logits)
    np.testing.assert_allclose(gradient, np.eye(3)[routing.expert] - routers.softmax(logits), atol=1e-6)


def gate_gradient(name, logits, expert):
    """Derivative of every datapoint's own gate by its logits, by hand."""
    chosen = np.eye(3)[expert]
    if name in ("base", "loss_free"):
        sigmoid = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        return chosen * sigmoid * (1 - sigmoid)
    p = routers.softmax(logits)
    return (chosen * p).sum(axis=1, keepdims=True) * (chosen - p)


@pytest.mark.parametrize("name", routers.TOP_ONE)
def test_gate_gradient(name):
    router, logits = routers.ALL[name], routers.logits()
    gradient = jax.jit(jax.grad(lambda a: router(KEY, a).gate.sum()))(logits)
    np.testing.assert_allclose(gradient, gate_gradient(name, logits, router(KEY, logits).expert), atol=1e-6)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-5, atol=1e-6)


@every
def test_jit_and_vmap_equal_single_calls(name):
    router = routers.ALL[name]
    batch = jnp.stack([routers.logits(seed=s) for s in range(3)])
    keys = jax.random.split(KEY, 3)
    single = [router(key, logits) for key, logits in zip(keys, batch, strict=True)]
    assert_same(jax.jit(router)(keys[0], batch[0]), single[0])
    assert_same(jax.vmap(router)(keys, batch), jax.tree.map(lambda *x: jnp.stack(x), *single))


@every
def test_forbidden_experts(name):
    router, logits = routers.ALL[name], routers.forbidding()
    routing = router(KEY, logits)
    if isinstance(routing, Routing):
        assert jnp.isfinite(logits[jnp.arange(8), routing.expert]).all()
        for field in (routing.weight, routing.log_prob, routing.gate):
            assert jnp.isfinite(field).all()
    else:
        filled = routing.datapoint >= 0
        assert jnp.isfinite(logits.T[jnp.arange(3)[:, None], routing.datapoint])[filled].all()
        assert jnp.isfinite(routing.gate).all()
    assert (jnp.isneginf(routing.log_probs) == jnp.isneginf(logits)).all()

    def total(a):
        routing = router(KEY, a)
        own = routing.log_prob.sum() if isinstance(routing, Routing) else 0.0
        return own + (routing.gate**2).sum() + (jnp.exp(routing.log_probs) ** 2).sum()

    gradient = jax.jit(jax.grad(total))(logits)
    assert jnp.isfinite(gradient).all()
    assert (gradient[jnp.isneginf(logits)] == 0).all()


@every
def test_extreme_logits_stay_finite(name):
    logits = routers.logits(scale=1e4)
    routing, gradient = jax.jit(jax.value_and_grad(lambda a: routers.ALL[name](KEY, a).gate.sum()))(logits)
    assert jnp.isfinite(routing)
    assert jnp.isfinite(gradient).all()


@every
def test_nan_under_jit(name):
    router, logits = routers.ALL[name], routers.logits().at[2, 1].set(jnp.nan)
    routing = jax.jit(router)(KEY, logits)
    if isinstance(routing, ExpertChoiceRouting):
        assert jnp.isnan(routing.gate).all()
        return
    spoilt = jnp.ones(8, bool) if name in routers.COUPLED else jnp.arange(8) == 2
    for field in (routing.weight, routing.log_prob, routing.gate):
        np.testing.assert_array_equal(jnp.isnan(field), spoilt)


@pytest.mark.parametrize("name", ["gumbel_matching", "base"])
def test_no_feasible_matching_under_jit(name):
    logits = routers.logits().at[:6, :2].set(-jnp.inf)  # six datapoints for the three places of the last expert
    routing = jax.jit(routers.ALL[name])(KEY, logits)
    assert (routing.expert == -1).all()
    for field in (routing.weight, routing.log_prob, routing.gate):
        assert jnp.isnan(field).all()
    assert load(routing).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="logits leave no feasible assignment"):
        routers.ALL[name](KEY, logits)


@every
@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (jnp.zeros(3), ValueError, r"logits must have shape \(n, k\)"),
        (jnp.zeros((2, 8, 3)), ValueError, r"logits must have shape \(n, k\), got shape \(2, 8, 3\); .*as_one_batch"),
        (jnp.zeros((8, 0)), ValueError, "at least one expert"),
        (jnp.zeros((8, 3), int), TypeError, "logits must be floating point"),
        (jnp.zeros((8, 3)).at[1, 1].set(jnp.nan), ValueError, "logits must not contain NaN"),
        (jnp.zeros((8, 3)).at[1, 1].set(jnp.inf), ValueError, r"logits must not contain \+inf"),
        (jnp.zeros((8, 3)).at[4].set(-jnp.inf), ValueError, r"forbids every expert \(-inf\) for datapoint \(4,\)"),
    ],
    ids=["rank1", "rank3", "no_expert", "ints", "nan", "inf", "forbidden"],
)
def test_bad_logits(name, logits, error, message):
    with pytest.raises(error, match=message):
        routers.ALL[name](KEY, logits)


@every
def test_half_precision_is_widened(name):
    logits = routers.logits(dtype=jnp.bfloat16)
    assert routers.ALL[name](KEY, logits).log_probs.dtype == jnp.float32


@every
def test_one_expert(name):
    capacity = {"capacity": 4} if hasattr(routers.ALL[name], "capacity") else {}
    routing = type(routers.ALL[name])(**capacity)(KEY, jnp.arange(4.0)[:, None])
    assert load(routing).tolist() == [4]
    assert (routing.log_probs == 0).all()


@one_expert
def test_no_datapoint(name):
    router = routers.ALL[name]
    routing = router(KEY, jnp.zeros((0, 3)))
    assert routing.expert.shape == routing.gate.shape == (0,)
    assert load(routing).tolist() == [0, 0, 0]
    if hasattr(router, "update"):
        assert jnp.isfinite(router.update(router.init(3), routing)).all()
