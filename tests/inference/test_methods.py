"""How every method trains and predicts, against calculations by hand on a small batch of the toy."""

from argparse import ArgumentTypeError

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.estimators import exact_loss
from inference.training.arguments import router, routers
from inference.training.methods import ESTIMATOR_METHODS, METHODS, ROUTER_METHODS
from models.data import bent_line
from models.digits import DigitsMixture
from models.toy import ToyMixture

NAMES = [
    "independent",
    "skip",
    "gumbel_matching",
    "independent_student",
    "skip_student",
    "gumbel_matching_student",
    "skip_floored_student",
    "gumbel_matching_floored",
    "gumbel_matching_floored_student",
    "skip_two_draws",
    "skip_uncorrected",
    "gumbel_matching_uncorrected",
    "switch",
    "switch_no_balancing",
    "base",
    "sinkhorn",
    "expert_choice",
    "loss_free",
    "quantile_balancing",
    "exact",
]
QUICK = ("skip", "gumbel_matching_floored_student", "skip_two_draws", "switch", "expert_choice", "loss_free", "exact")
KEY = jax.random.key(2)
N, CAPACITY = 8, 4
X = jnp.linspace(0.05, 0.95, N)[:, None]
Y = bent_line(X)


def test_names_are_read_with_either_dash():
    for name in NAMES:
        assert router(name.replace("_", "-")) is router(name) is METHODS[name]
    read = routers("gumbel-matching,skip,gumbel_matching, loss-free")
    assert [method.name for method in read] == ["gumbel_matching", "skip", "loss_free"]


def test_groups_are_read_as_their_members():
    assert [method.name for method in routers("routers")] == list(ROUTER_METHODS)
    assert [method.name for method in routers("switch,estimators")] == list(
        dict.fromkeys(("switch", *ESTIMATOR_METHODS))
    )
    assert [method.name for method in routers("all")] == NAMES


@pytest.fixture
def model():
    """Expert 1 is the best for the five largest `x`, one more than it has places."""
    model = ToyMixture(jax.random.key(0))
    return jax.tree.unflatten(
        jax.tree.structure(model), [jnp.array([0.5, -1.5]), jnp.array([0.1, 1.8]), jnp.array([4.0, -1.6])]
    )


def parts(model):
    logits = np.asarray(model.logits(X))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return logits, p, np.asarray(model.all_outputs(X))[..., 0]


@pytest.mark.slow
def test_two_of_two_experts_leave_nothing_to_chance(model):
    """Methods that draw have the enumerated loss; Switch predicts the mixture of both outputs."""
    for name in ("skip", "gumbel_matching", "skip_student"):
        method = METHODS[name].with_experts(2)
        loss = jax.jit(lambda model, method=method: method.loss(KEY, model, X, Y, method.init_state(model), N))
        value, step = loss(model)
        np.testing.assert_allclose(value, exact_loss(model.logits(X), model.all_losses(X, Y)), rtol=1e-5)
        assert step.traffic.load.tolist() == [N, N]
    _, p, outputs = parts(model)
    switch = METHODS["switch"].with_experts(2)
    own = jax.jit(lambda model: switch.predict(model, X, Y, None, N).outputs)(model)
    np.testing.assert_allclose(own[:, 0], (p * outputs).sum(axis=1), rtol=1e-5)
    assert METHODS["exact"].with_experts(2) is METHODS["exact"]


def test_registry():
    assert list(METHODS) == NAMES
    assert all(METHODS[name].name == name for name in NAMES)
    assert {METHODS[name].kind for name in NAMES} == {"weighted", "uncorrected", "biased", "reference"}
    with pytest.raises(ArgumentTypeError, match="unknown router 'nobody'; choose from independent, skip, "):
        router("nobody")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES]
)
def test_step_is_finite_and_counts_everyone(name, model):
    method = METHODS[name]
    before = method.init_state(model)
    training = jax.value_and_grad(lambda model: method.loss(KEY, model, X, Y, before, CAPACITY), has_aux=True)
    (value, step), gradient = jax.jit(training)(model)
    assert value.shape == ()
    assert jnp.isfinite(value)
    assert jax.tree.structure(step.router_state) == jax.tree.structure(before)
    traffic = step.traffic
    assert traffic.demand.shape == traffic.load.shape == (2,)
    assert traffic.demand.sum() == (2 * N if name == "exact" else N)
    assert (traffic.load <= traffic.demand).all()
    if name not in ("independent", "independent_student", "expert_choice", "exact"):
        assert (traffic.load <= CAPACITY).all()
        np.testing.assert_allclose(traffic.skipped, 1 - traffic.load.sum() / N, atol=1e-6)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("name", "factor"), [("switch", 0.01), ("switch_no_balancing", 0.0)])
def test_switch_drops_by_position_and_gates(name, factor, model):
    _, p, outputs = parts(model)
    best = p.argmax(axis=1)
    assert (best == 1).sum() == CAPACITY + 1
    kept = np.ones(N, bool)
    kept[np.flatnonzero(best == 1)[CAPACITY:]] = False
    predicted = np.where(kept, p.max(axis=1) * outputs[np.arange(N), best], 0)
    balancing = 2 * np.sum(np.bincount(best, minlength=2) / N * p.mean(axis=0))
    expected = np.mean((predicted - np.asarray(Y)[:, 0]) ** 2) + factor * balancing
    value, step = METHODS[name].loss(KEY, model, X, Y, None, CAPACITY)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(step.traffic.skipped, 1 / N, rtol=1e-5)
    np.testing.assert_array_equal(step.traffic.demand, np.bincount(best, minlength=2))


@pytest.mark.parametrize("name", ["switch", "switch_no_balancing", "sinkhorn", "base"])
def test_best_expert_gated_at_test(name, model):
    logits, p, outputs = parts(model)
    gate = 1 / (1 + np.exp(-logits.max(axis=1))) if name == "base" else p.max(axis=1)
    expected = gate * outputs[np.arange(N), p.argmax(axis=1)]  # nobody dropped, though five want expert 1
    own = METHODS[name].predict(model, X, Y, None, CAPACITY).outputs
    np.testing.assert_allclose(own[:, 0], expected, rtol=1e-5)
    losses = METHODS[name].predict(model, X, Y, None, CAPACITY).losses
    np.testing.assert_allclose(losses, (expected - np.asarray(Y)[:, 0]) ** 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["loss_free", "quantile_balancing"])
def test_bias_chooses_but_does_not_gate(name, model):
    logits, p, outputs = parts(model)
    scores = 1 / (1 + np.exp(-logits)) if name == "loss_free" else p
    bias = jnp.array([0.3, -0.3])
    chosen = (scores + np.asarray(bias)).argmax(axis=1)
    assert (chosen != scores.argmax(axis=1)).any()
    expected = scores[np.arange(N), chosen] * outputs[np.arange(N), chosen]
    own = METHODS[name].predict(model, X, Y, bias, CAPACITY).outputs
    np.testing.assert_allclose(own[:, 0], expected, rtol=1e-5)
    _, step = METHODS[name].loss(KEY, model, X, Y, METHODS[name].init_state(model), CAPACITY)
    assert step.router_state[0] > step.router_state[1]  # expert 1 is asked for too often


def test_expert_choice_sums_and_leaves_out(model):
    _, p, outputs = parts(model)
    capacity = 3  # datapoints in the middle are nobody's
    expected = np.zeros(N)
    for j in range(2):
        taken = np.argsort(-p[:, j], kind="stable")[:capacity]
        expected[taken] += p[taken, j] * outputs[taken, j]
    assert (expected == 0).sum() == N - 2 * capacity
    own = METHODS["expert_choice"].predict(model, X, Y, None, capacity).outputs
    np.testing.assert_allclose(own[:, 0], expected, rtol=1e-5)
    value, step = METHODS["expert_choice"].loss(KEY, model, X, Y, None, capacity)
    np.testing.assert_allclose(value, np.mean((expected - np.asarray(Y)[:, 0]) ** 2), rtol=1e-5)
    np.testing.assert_allclose(step.traffic.skipped, (N - 2 * capacity) / N, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES[:5])
def test_drawn_experts_at_test(name, model):
    _, p, outputs = parts(model)
    losses = (outputs - np.asarray(Y)) ** 2
    own = METHODS[name].predict(model, X, Y, None, CAPACITY).losses
    np.testing.assert_allclose(own, (p * losses).sum(axis=1), rtol=1e-4)
    routed = METHODS[name].predict(model, X, Y, None, CAPACITY).outputs
    np.testing.assert_allclose(routed[:, 0], outputs[np.arange(N), p.argmax(axis=1)], rtol=1e-5)


@pytest.mark.slow
def test_log_likelihoods_of_classifiers():
    model = jax.jit(lambda key: DigitsMixture(key, num_experts=3))(jax.random.key(0))
    x, y = jax.random.uniform(KEY, (5, 64)), jnp.arange(5)
    p = np.asarray(jax.nn.softmax(model.logits(x), axis=1))
    class_probs = np.asarray(jax.nn.softmax(model.all_outputs(x), axis=2))
    mixed = (p[:, :, None] * class_probs).sum(axis=1)[np.arange(5), np.arange(5)]
    np.testing.assert_allclose(model.mixture_log_likelihoods(x, y), np.log(mixed), rtol=1e-4)
    own = METHODS["skip"].predict(model, x, y, None, 2).log_likelihoods
    np.testing.assert_allclose(own, np.log(mixed), rtol=1e-4)
    gated = METHODS["switch"].predict(model, x, y, None, 2).log_likelihoods
    np.testing.assert_allclose(gated, -METHODS["switch"].predict(model, x, y, None, 2).losses, rtol=1e-6)


def test_baseline_is_the_mean_of_earlier_losses(model):
    method = METHODS["independent"]
    loss = jax.jit(lambda key, baseline: method.loss(key, model, X, Y, baseline, CAPACITY))
    baseline = method.init_state(model)
    seen = []
    for number in range(3):
        value, step = loss(jax.random.fold_in(KEY, number), baseline)
        baseline = step.router_state
        seen.append(float(value))
        total, weight = baseline
        recent = 0.99 ** np.arange(number, -1, -1)
        np.testing.assert_allclose(total / weight, np.average(seen, weights=recent), rtol=1e-4)
