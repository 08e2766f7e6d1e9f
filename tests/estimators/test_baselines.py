"""Baselines as objects: unbiased when used first and updated then, biased in the other order; what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gumbel_moe.diagnostics import check_unbiased, compare_variance
from gumbel_moe.estimators import (
    LossCritic,
    RunningMean,
    StudentExperts,
    exact_loss,
    leave_one_out,
    score_function_loss,
    shared_network,
)
from gumbel_moe.routing import GumbelMatchingRouter, SkipRouter

KEY = jax.random.key(3)
N, K, DIM = 8, 2, 3
X = jax.random.normal(jax.random.key(0), (N, DIM))
Y = jnp.sin(X @ jnp.array([1.0, -2.0, 0.5]))
PARAMS = {
    "router": jax.random.normal(jax.random.key(1), (DIM, K)),
    "experts": jax.random.normal(jax.random.key(2), (DIM, K)),
}
# The test of bias: 20,000 draws; an unbiased estimator fails with probability 1e-6, and seeds are fixed.
DRAWS = {"draws": 5000, "chains": 4}


def losses_of(outputs):
    return (outputs[:, 0] - Y) ** 2


def all_losses(params):
    return (X @ params["experts"] - Y[:, None]) ** 2


def exact(params=PARAMS):
    return jax.jit(jax.grad(lambda p: exact_loss(X @ p["router"], all_losses(p))))(params)


def outputs_at(params, expert):
    return jnp.sum(X * params["experts"].T[expert], axis=1)[:, None]


# A student and a critic that are tables: one large step fits them to what was drawn.
MEAN = RunningMean()
CRITIC = LossCritic(lambda table, x: table, optax.sgd(0.4 * N))
STUDENT = StudentExperts(lambda table, x: table, optax.sgd(0.4 * N))
ROUTER = SkipRouter(3)


UPDATES = {
    "mean": jax.jit(lambda state, routing, outputs: MEAN.update(state, routing, losses_of(outputs))),
    "critic": jax.jit(lambda state, routing, outputs: CRITIC.update(state, routing, losses_of(outputs), X)),
    "student": jax.jit(lambda state, routing, outputs: STUDENT.update(state, routing, outputs, X)),
}


def with_state(name):
    """A state that has learned from a few other draws."""
    tables = {"critic": jnp.zeros((N, K)), "student": jnp.zeros((N, K, 1))}
    state = MEAN.init() if name == "mean" else {"critic": CRITIC, "student": STUDENT}[name].init(tables[name])
    for number in range(3):
        routing = ROUTER(jax.random.fold_in(KEY, number), X @ PARAMS["router"])
        state = UPDATES[name](state, routing, outputs_at(PARAMS, routing.expert))
    return state


def estimate(name, state, router=ROUTER, update_first=False):
    def loss(params, key):
        routing = router(key, X @ params["router"])
        outputs = outputs_at(params, routing.expert)
        if update_first:
            now = UPDATES[name](state, routing, outputs)
            baseline = STUDENT.baseline(now, X, losses_of) if name == "student" else CRITIC.baseline(now, X)
            return score_function_loss(routing, losses_of(outputs), baseline)
        if name == "student":
            return STUDENT.loss(state, routing, outputs, X, losses_of)[0]
        if name == "critic":
            return CRITIC.loss(state, routing, losses_of(outputs), X)[0]
        return MEAN.loss(state, routing, losses_of(outputs))[0]

    return jax.jit(lambda key: jax.grad(loss)(PARAMS, key))


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("mean", "critic")), "student"]
)
def test_used_first_they_are_unbiased(name):
    assert check_unbiased(estimate(name, with_state(name)), exact(), KEY, **DRAWS).passed


@pytest.mark.slow
def test_a_student_with_a_floored_matching_is_unbiased():
    router = GumbelMatchingRouter(4, floor=0.1)
    assert check_unbiased(estimate("student", with_state("student"), router), exact(), KEY, **DRAWS).passed


@pytest.mark.parametrize("name", [pytest.param("critic", marks=pytest.mark.slow), "student"])
def test_updated_first_they_are_biased(name):
    assert not check_unbiased(estimate(name, with_state(name), update_first=True), exact(), KEY, **DRAWS).passed


def test_the_mean_of_the_same_batch_is_biased():
    def loss(params, key):
        routing = ROUTER(key, X @ params["router"])
        losses = losses_of(outputs_at(params, routing.expert))
        mean = jnp.sum(routing.weight * losses) / jnp.sum(routing.weight)
        return score_function_loss(routing, losses, mean)

    assert not check_unbiased(jax.jit(lambda key: jax.grad(loss)(PARAMS, key)), exact(), KEY, **DRAWS).passed


def test_a_good_student_takes_the_routers_noise_away():
    table = (X @ PARAMS["experts"])[:, :, None]
    state = STUDENT.init(table)
    np.testing.assert_allclose(STUDENT.baseline(state, X, losses_of), all_losses(PARAMS), rtol=1e-5)

    def router_part(name, state):
        one = estimate(name, state)
        return jax.jit(lambda key: one(key)["router"])

    pair = {"mean": router_part("mean", with_state("mean")), "student": router_part("student", state)}
    summary = compare_variance(pair, KEY, draws=500).summary
    assert summary.relative["student"] > 1000


def test_running_mean_by_hand():
    mean, state = RunningMean(0.9), RunningMean(0.9).init()
    assert mean.baseline(state) == 0
    total = seen = 0.0
    for number in range(4):
        routing = ROUTER(jax.random.fold_in(KEY, number), X @ PARAMS["router"])
        losses = jnp.where(routing.kept, jnp.arange(N, dtype=jnp.float32), jnp.nan)
        state = jax.jit(mean.update)(state, routing, losses)
        weight = np.asarray(routing.weight, np.float64)
        total = 0.9 * total + 0.1 * (weight * np.arange(N)).sum() / weight.sum()
        seen = 0.9 * seen + 0.1
        np.testing.assert_allclose(mean.baseline(state), total / seen, rtol=1e-5)


@pytest.mark.slow
def test_update_ignores_who_was_not_kept():
    routing = ROUTER(KEY, X @ PARAMS["router"])
    assert not routing.kept.all()
    dirty = jnp.where(routing.kept[:, None], outputs_at(PARAMS, routing.expert), jnp.nan)
    network = shared_network(K, 1, hidden=(4,))
    student = StudentExperts(network.apply, optax.sgd(0.1))
    state = student.init(network.init(KEY, DIM))
    clean = student.update(state, routing, jnp.where(routing.kept[:, None], dirty, 0), X)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        student.update(state, routing, dirty, X).params,
        clean.params,
    )


def test_loss_is_the_three_steps_in_order():
    """And who takes no part may have any features."""
    mask = jnp.arange(N) < 6
    network = shared_network(K, 1, hidden=(4,))
    student = StudentExperts(network.apply, optax.sgd(0.1), network.decode)
    state = student.init(network.init(KEY, DIM))
    routing = SkipRouter(2)(KEY, X @ PARAMS["router"], mask=mask)
    outputs = outputs_at(PARAMS, jnp.minimum(routing.expert, K - 1))
    value, after = student.loss(state, routing, outputs, jnp.where(mask[:, None], X, jnp.nan), losses_of)
    expected = score_function_loss(routing, losses_of(outputs), student.baseline(state, X, losses_of))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        after.params,
        student.update(state, routing, outputs, X).params,
    )


def test_under_jit_vmap_and_scan_and_nothing_leaks_into_the_gradient():
    network = shared_network(K, 1, hidden=(8,))
    student = StudentExperts(network.apply, optax.sgd(1e-2, momentum=0.9))

    def run(key):
        def step(carry, key):
            params, state = carry

            def loss(params):
                routing = ROUTER(key, X @ params["router"])
                outputs = outputs_at(params, routing.expert)
                return student.loss(state, routing, outputs, X, losses_of)

            gradient, state = jax.grad(loss, has_aux=True)(params)
            return (jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), state), None

        start = PARAMS, student.init(network.init(key, DIM))
        (params, state), _ = jax.lax.scan(step, start, jax.random.split(key, 20))
        return params, state.params

    both = jax.jit(jax.vmap(run))(jax.random.split(KEY, 2))
    one = jax.jit(run)(jax.random.split(KEY, 2)[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=2e-3, atol=1e-4), both, one)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(both))


@pytest.mark.slow
def test_codes_are_decoded_and_only_the_most_probable_predicted():
    k, out, rank = 5, 7, 2
    network = shared_network(k, out, hidden=(6,), rank=rank)
    params = network.init(KEY, DIM)
    targets = jax.random.normal(KEY, (N, out))
    logits = jax.random.normal(jax.random.key(9), (N, k))

    def loss(outputs):
        return jnp.mean((outputs - targets) ** 2, axis=1)

    whole = jnp.stack([network.decode(params, network.apply(params, X)[:, j]) for j in range(k)], axis=1)
    expected = jnp.mean((whole - targets[:, None]) ** 2, axis=2)
    student = StudentExperts(network.apply, optax.sgd(0.1), network.decode)
    baseline = student.baseline(student.init(params), X, loss)
    np.testing.assert_allclose(baseline, expected, rtol=1e-5)
    some = StudentExperts(network.apply, optax.sgd(0.1), network.decode, most=2)
    found = np.asarray(some.baseline(some.init(params), X, loss, logits))
    best = np.argsort(-np.asarray(logits), axis=1)[:, :2]
    rows = np.arange(N)[:, None]
    np.testing.assert_allclose(found[rows, best], np.asarray(expected)[rows, best], rtol=1e-5)
    rest = np.ones((N, k), bool)
    rest[rows, best] = False
    mean = np.broadcast_to(found[rows, best].mean(axis=1, keepdims=True), (N, k))
    np.testing.assert_allclose(found[rest], mean[rest], rtol=1e-5)
    with pytest.raises(ValueError, match="logits must be given where most is 2 of 5 experts"):
        some.baseline(some.init(params), X, loss)
    # It learns towards what was drawn.
    routing = SkipRouter(4)(KEY, logits)
    state = some.init(params)
    before = loss(network.decode(state.params, network.apply(state.params, X)[jnp.arange(N), routing.expert]))
    learn = jax.jit(lambda state: some.update(state, routing, targets, X))
    for _ in range(50):
        state = learn(state)
    after = loss(network.decode(state.params, network.apply(state.params, X)[jnp.arange(N), routing.expert]))
    assert jnp.sum(jnp.where(routing.kept, after, 0)) < jnp.sum(jnp.where(routing.kept, before, 0))


@pytest.mark.slow
def test_a_student_that_learns_from_some_datapoints():
    network = shared_network(K, 1, hidden=(6,))
    whole = StudentExperts(network.apply, optax.sgd(0.1), network.decode)
    part = StudentExperts(network.apply, optax.sgd(0.1), network.decode, learn_from=3)
    state = whole.init(network.init(KEY, DIM))
    routing = ROUTER(KEY, X @ PARAMS["router"])
    outputs = outputs_at(PARAMS, routing.expert)
    value, after = part.loss(state, routing, outputs, X, losses_of)
    assert value == whole.loss(state, routing, outputs, X, losses_of)[0]  # the baseline is that of all datapoints
    rows = np.array([0, 2, 5])
    some = jax.tree.map(lambda a: a[rows], routing)
    for found in (after, part.update(state, routing, outputs, X)):
        jax.tree.map(np.testing.assert_array_equal, found, whole.update(state, some, outputs[rows], X[rows]))
    everybody = StudentExperts(network.apply, optax.sgd(0.1), network.decode, learn_from=N)
    jax.tree.map(
        np.testing.assert_array_equal,
        everybody.update(state, routing, outputs, X),
        whole.update(state, routing, outputs, X),
    )


def test_shapes_that_would_broadcast_are_refused():
    routing = ROUTER(KEY, X @ PARAMS["router"])
    outputs = outputs_at(PARAMS, routing.expert)
    with pytest.raises(ValueError, match=r"outputs must have the shape of what is predicted, \(8, 1\), got \(8,\)"):
        STUDENT.update(STUDENT.init(jnp.zeros((N, K, 1))), routing, outputs[:, 0], X)
    with pytest.raises(ValueError, match=r"losses must have shape \(8,\), one per datapoint, got \(8, 1\)"):
        CRITIC.update(CRITIC.init(jnp.zeros((N, K))), routing, outputs, X)
    with pytest.raises(ValueError, match=r"losses must have shape \(8,\), one per datapoint, got \(8, 1\)"):
        MEAN.update(MEAN.init(), routing, outputs)


def test_leave_one_out_by_hand():
    weight = jnp.array([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    losses = jnp.array([[1.0, jnp.nan, 3.0], [2.0, jnp.inf, jnp.nan], [jnp.nan, 5.0, 7.0]])
    # Datapoint 1 of draw 2 was kept by no other draw: the mean over all that the others kept, (1 + 6 + 6) / 6.
    expected = [[2.0, 5.0, 7.0], [1.0, 5.0, 13 / 3], [7 / 4, 13 / 6, 3.0]]
    np.testing.assert_allclose(leave_one_out(weight, losses), expected, rtol=1e-6)
    assert (leave_one_out(weight[:1], losses[:1]) == 0).all()
    with pytest.raises(ValueError, match="weight and losses must have the same shape"):
        leave_one_out(weight, losses[:2])
    with pytest.raises(ValueError, match="weight and losses must have the same shape"):
        leave_one_out(weight[0], losses[0])


@pytest.mark.slow
def test_several_draws_with_leave_one_out_are_unbiased():
    def estimator(baseline):
        def loss(params, key):
            routings = jax.vmap(ROUTER, (0, None))(jax.random.split(key, 3), X @ params["router"])
            losses = jax.vmap(lambda expert: losses_of(outputs_at(params, expert)))(routings.expert)
            return jax.vmap(score_function_loss)(routings, losses, baseline(routings.weight, losses)).mean()

        return jax.jit(lambda key: jax.grad(loss)(PARAMS, key))

    assert check_unbiased(estimator(leave_one_out), exact(), KEY, **DRAWS).passed

    def with_itself(weight, losses):
        mean = jnp.sum(weight * losses, axis=0) / jnp.maximum(jnp.sum(weight, axis=0), 1)
        return jnp.broadcast_to(mean, weight.shape)

    assert not check_unbiased(estimator(with_itself), exact(), KEY, **DRAWS).passed


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
        RunningMean(decay)


def test_bad_networks():
    with pytest.raises(ValueError, match="rank must be a positive int, got 0"):
        shared_network(2, 3, rank=0)
    with pytest.raises(ValueError, match="hidden must have at least one width"):
        shared_network(2, 3, hidden=())
    with pytest.raises(ValueError, match="most must be a positive int"):
        StudentExperts(lambda params, x: x, optax.sgd(1.0), most=0)
    with pytest.raises(ValueError, match="learn_from must be a positive"):
        StudentExperts(lambda params, x: x, optax.sgd(1.0), learn_from=-1)
