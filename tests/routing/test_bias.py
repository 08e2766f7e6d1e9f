"""The two routers that carry a bias: selection, updates against NumPy, and the balance that they reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import ExpertChoiceRouter, LossFreeRouter, QuantileBalancingRouter
from tests.routing import routers

KEY = routers.KEY
KINDS = pytest.mark.parametrize("kind", [LossFreeRouter, QuantileBalancingRouter])
SCORES = pytest.mark.parametrize(
    ("kind", "score"),
    [
        (LossFreeRouter, "sigmoid"),
        (LossFreeRouter, "softmax"),
        (QuantileBalancingRouter, "softmax"),
        (QuantileBalancingRouter, "log_softmax"),
    ],
)


def scores_of(score, logits):
    if score == "sigmoid":
        return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return routers.softmax(logits) if score == "softmax" else np.log(routers.softmax(logits))


@SCORES
def test_bias_selects_and_leaves_the_gate_alone(kind, score):
    logits = routers.logits(20, 4)
    bias = jnp.array([-0.3, 0.1, 0.2, 0.0])
    routing = kind((5, 4, 9, 2), score=score)(KEY, logits, bias)
    scores = scores_of(score, logits)
    expert = (scores + np.asarray(bias)).argmax(axis=1)
    assert (expert != scores.argmax(axis=1)).any()
    np.testing.assert_array_equal(routing.expert, expert)
    kept = routers.first_come(expert, (5, 4, 9, 2))
    np.testing.assert_array_equal(routing.kept, kept)
    np.testing.assert_array_equal(routing.weight, kept)
    gate = scores if score == "sigmoid" else routers.softmax(logits)
    np.testing.assert_allclose(routing.gate, gate[np.arange(20), expert], rtol=1e-5)


@KINDS
def test_no_bias_is_zero_bias(kind):
    router = kind(3)
    bias = router.init(3)
    assert bias.tolist() == [0, 0, 0]
    jax.tree.map(np.testing.assert_array_equal, router(KEY, routers.logits()), router(KEY, routers.logits(), bias))


@KINDS
def test_bias_has_no_gradient(kind):
    router, logits = kind(3), routers.logits()
    bias = jnp.array([0.1, 0.2, -0.3])

    def total(bias):
        routing = router(KEY, logits, bias)
        return routing.gate.sum() + routing.log_prob.sum() + (router.update(bias, routing) ** 2).sum()

    assert (jax.jit(jax.grad(total))(bias) == 0).all()


@KINDS
def test_forbidden_experts_stay_forbidden_under_any_bias(kind):
    logits = routers.forbidding()
    router = kind(8)
    bias = jnp.array([1e6, -1e6, 3.0])
    routing = router(KEY, logits, bias)
    assert jnp.isfinite(logits[jnp.arange(8), routing.expert]).all()
    assert jnp.isfinite(router.update(bias, routing)).all()


@pytest.mark.parametrize("capacity", [5, (5, 5, 5), (1, 2, 6)])
def test_loss_free_update(capacity):
    router = LossFreeRouter(capacity, rate=0.25)
    routing = router(KEY, routers.logits(9, 3), None)
    places = np.broadcast_to(capacity, 3)
    wanted = 9 * places / places.sum()
    load = np.bincount(routing.expert, minlength=3)
    expected = [0.25, 0, 0] + 0.25 * np.sign(wanted - load)
    np.testing.assert_allclose(router.update([0.25, 0.0, 0.0], routing), expected, rtol=1e-6)


def test_loss_free_leaves_exact_balance_alone():
    # n c_j / sum(c) must be exact: 49 * (1 / 49) is not 1 in floating point.
    routing = LossFreeRouter(3)(KEY, routers.logits())
    routing = routing._replace(expert=jnp.arange(49, dtype=jnp.int32), log_probs=jnp.zeros((49, 49)))
    assert (LossFreeRouter(1).update(jnp.zeros(49), routing) == 0).all()


def imbalance(routing):
    """Largest load relative to the mean, minus 1, before anybody is dropped."""
    load = jnp.sum(routing.expert[:, None] == jnp.arange(routing.log_probs.shape[1]), axis=0)
    return load.max() / load.mean() - 1


def follow(router, batches):
    """Imbalance of every batch in turn, the bias carried along."""

    def step(bias, logits):
        routing = router(KEY, logits, bias)
        return router.update(bias, routing), imbalance(routing)

    return jax.jit(lambda b: jax.lax.scan(step, router.init(b.shape[2]), b)[1])(batches)


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_loss_free_reaches_balance_over_many_batches(score):
    batches = jnp.stack([routers.logits(256, 4, seed) for seed in range(50)])
    batches = jnp.tile(batches, (8, 1, 1))
    seen = follow(LossFreeRouter(256, rate=0.005, score=score), batches)
    assert seen[:50].mean() > 0.5
    assert seen[-50:].mean() < 0.2


def test_loss_free_with_the_sign_reversed_does_not():
    batches = jnp.tile(jnp.stack([routers.logits(256, 4, seed) for seed in range(50)]), (8, 1, 1))

    class Reversed(LossFreeRouter):
        def update(self, bias, routing):
            return 2 * bias - super().update(bias, routing)

    assert follow(Reversed(256, rate=0.005), batches)[-50:].mean() > 0.5


def one_update(scores, bias, capacity):
    """The quantile rule by loops over datapoints and experts, in NumPy."""
    k = scores.shape[1]
    cutoff = [np.sort(row + bias)[-2] for row in scores]
    places = np.broadcast_to(capacity, k)
    quantiles = [np.quantile(cutoff - scores[:, j], places[j] / places.sum(), method="hazen") for j in range(k)]
    return np.array(quantiles) - np.mean(quantiles)


@pytest.mark.each_choice
@pytest.mark.parametrize("score", ["softmax", "log_softmax"])
@pytest.mark.parametrize("capacity", [5, (1, 2, 3, 14)])
def test_quantile_update(score, capacity, x64):
    check_quantile_update(score, 20, 4, capacity, 1e-12 if x64 else 1e-5)


@pytest.mark.parametrize(("n", "k"), [(13, 4), (2, 5)])
def test_quantile_update_where_shares_are_no_whole_numbers(n, k):
    check_quantile_update("softmax", n, k, 3, 1e-5)


def check_quantile_update(score, n, k, capacity, tolerance):
    router = QuantileBalancingRouter(capacity, score=score)
    logits = routers.logits(n, k)
    bias = np.linspace(-0.2, 0.3, k)
    actual = router.update(jnp.asarray(bias), router(KEY, logits, jnp.asarray(bias)))
    expected = one_update(scores_of(score, logits), bias, capacity)
    np.testing.assert_allclose(actual, expected, atol=tolerance)


@pytest.mark.parametrize(("score", "scale"), [("softmax", 1.0), ("log_softmax", 1.0), ("log_softmax", 20.0)])
def test_quantile_balances_a_skewed_batch_in_few_updates(score, scale):
    logits = routers.logits(512, 8, scale=scale)
    seen = follow(QuantileBalancingRouter(512, score=score), jnp.tile(logits, (11, 1, 1)))
    assert seen[0] > 1.5
    assert seen[-1] < 0.1


def test_quantile_aims_at_unequal_capacities():
    router = QuantileBalancingRouter((30, 60, 10), score="log_softmax")
    logits = routers.logits(100, 3)
    bias = router.init(3)
    for _ in range(10):
        bias = router.update(bias, router(KEY, logits, bias))
    np.testing.assert_allclose(np.bincount(router(KEY, logits, bias).expert, minlength=3), [30, 60, 10], atol=2)


def test_quantile_where_some_have_one_expert_only():
    logits = routers.logits(12, 3).at[:5, 1:].set(-jnp.inf).at[5, 0].set(-jnp.inf)
    router = QuantileBalancingRouter(4)
    bias = router.init(3)
    for _ in range(10):
        bias = router.update(bias, router(KEY, logits, bias))
        assert jnp.isfinite(bias).all()
    # Expert 0 has five of the twelve whatever its bias, more than its share; at most the one on the border joins them.
    assert np.bincount(router(KEY, logits, bias).expert, minlength=3)[0] in (5, 6)


@KINDS
@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (jnp.zeros(2), r"bias must be floats of shape \(3,\)"),
        (jnp.zeros((3, 1)), r"bias must be floats of shape \(3,\)"),
        (jnp.zeros(3, int), r"bias must be floats of shape \(3,\)"),
        (jnp.array([0.0, jnp.nan, 0.0]), "bias must be finite"),
    ],
)
def test_bad_bias(kind, bias, message):
    router, logits = kind(3), routers.logits()
    with pytest.raises(ValueError, match=message):
        router(KEY, logits, bias)
    with pytest.raises(ValueError, match=message):
        router.update(bias, router(KEY, logits))


@KINDS
def test_update_wants_one_expert_per_datapoint(kind):
    with pytest.raises(TypeError, match="one expert per datapoint, got ExpertChoiceRouting"):
        kind(3).update(kind(3).init(3), ExpertChoiceRouter(2)(KEY, routers.logits()))
    with pytest.raises(ValueError, match="num_experts must be a positive int"):
        kind(3).init(0)


@KINDS
def test_nan_bias_under_jit(kind):
    router = kind(3)
    routing = jax.jit(router)(KEY, routers.logits(), jnp.array([0.0, jnp.nan, 0.0]))
    for field in (routing.weight, routing.log_prob, routing.gate):
        assert jnp.isnan(field).all()


def test_nan_scores_give_a_nan_quantile():
    router, logits = QuantileBalancingRouter(3), routers.logits().at[7, 2].set(jnp.nan)
    assert jnp.isnan(jax.jit(lambda a: router.update(router.init(3), router(KEY, a)))(logits)).all()


@KINDS
def test_update_under_jit_and_vmap(kind):
    router = kind(3)
    batch = jnp.stack([routers.logits(seed=s) for s in range(3)])
    biases = 0.1 * batch[:, 0]

    def step(bias, logits):
        return router.update(bias, router(KEY, logits, bias))

    together = jax.jit(jax.vmap(step))(biases, batch)
    for i in range(3):
        np.testing.assert_allclose(together[i], step(biases[i], batch[i]), atol=1e-6)
