"""Evaluation in chunks, and tasks unlike those that the programs have: two routed layers, no enumeration."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gumbel_moe.routing import ROUTERS
from inference.training.evaluation import Evaluation
from inference.training.methods import METHODS
from inference.training.starts import Outcome, compile_starts, starting_points, train_starts
from inference.training.tasks import TASKS, Data, Task
from models.layers import MoELayer, Routed

CHUNK = 128  # seven of them and a rest in the toy's test set, two and a rest in that of the digits


def metrics_of(task, name, seed=1):
    model = task.model(jax.random.key(seed))
    state = METHODS[name].init_state(model)
    if name in ("loss_free", "quantile_balancing"):
        state = jnp.linspace(-0.1, 0.1, task.num_experts)
    return jax.jit(lambda model: task.evaluate(METHODS[name], model, state))(model)


def in_chunks(task):
    return replace(task, evaluation=replace(task.evaluation, chunk=CHUNK))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        *(("toy", name) for name in ROUTERS),
        *(pytest.param("digits", name, marks=pytest.mark.slow) for name in ("skip", "loss_free")),
    ],
)
def test_chunks_give_the_same_means(data, name):
    task = TASKS[data](0)
    whole, streamed = metrics_of(task, name), metrics_of(in_chunks(task), name)
    assert whole.keys() == streamed.keys()
    for metric, value in whole.items():
        if name == "expert_choice":  # its experts choose among all there are, whatever the chunk
            np.testing.assert_array_equal(streamed[metric], value)
        np.testing.assert_allclose(streamed[metric], value, rtol=2e-5, err_msg=metric)


@pytest.mark.slow
def test_the_training_loss_is_the_objective_on_all_training_data():
    task = TASKS["digits"](0)
    model = task.model(jax.random.key(1))
    x, y = task.data.train
    assert x.shape[0] == 1437
    probs, losses = jax.nn.softmax(model.logits(x), axis=1), model.all_losses(x, y)
    found = metrics_of(task, "skip")
    np.testing.assert_allclose(found["training_loss"], np.sum(probs * losses, axis=1).mean(), rtol=1e-5)
    assert not np.isclose(found["training_loss"], found["true_loss"], rtol=1e-5)  # that is at test
    assert "training_loss" not in metrics_of(TASKS["toy"](0), "skip")  # every batch is fresh there


@pytest.mark.slow
def test_experts_that_choose_from_chunks_would_predict_something_else():
    task = TASKS["toy"](0)
    x, y = task.data.test
    model, method = task.model(jax.random.key(1)), METHODS["expert_choice"]
    whole = method.predict(model, x, y, None, task.capacity_among(1000)).outputs
    part = method.predict(model, x[:CHUNK], y[:CHUNK], None, task.capacity_among(CHUNK)).outputs
    assert not np.allclose(part, whole[:CHUNK])
    assert [name for name in METHODS if METHODS[name].whole_test_set] == ["expert_choice"]


@pytest.mark.parametrize(("chunk", "sizes"), [(1000, [1000]), (2000, [1000]), (250, [250]), (300, [300, 100])])
def test_how_many_datapoints_are_evaluated_at_once(chunk, sizes):
    seen = []

    def metrics(method, model, x, y, router_state, capacity):
        seen.append(x.shape[0])
        assert capacity == x.shape[0] // 2
        return {"mean": jnp.mean(x), "squares": jnp.mean(y**2)}

    task = replace(TASKS["toy"](0), evaluation=Evaluation(metrics, "nothing", chunk=chunk))
    x, y = task.data.test
    found = task.evaluate(METHODS["skip"], None, None)
    assert seen == sizes
    np.testing.assert_allclose([found["mean"], found["squares"]], [x.mean(), (y**2).mean()], rtol=1e-5)


def test_test_sets_of_the_programs_are_one_chunk():
    for make in TASKS.values():
        task = make(0)
        assert len(task.data.test[0]) <= task.evaluation.chunk


class TwoLayers(eqx.Module):
    """Four and four linear experts, each layer with its own router's state."""

    first: MoELayer
    second: MoELayer

    def __init__(self, key):
        def layer(key):
            for_experts, for_router = jax.random.split(key)
            experts = eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 3, key=key))(jax.random.split(for_experts, 4))
            return MoELayer(experts, eqx.nn.Linear(3, 4, key=for_router))

        self.first, self.second = map(layer, jax.random.split(key))

    def init_state(self, router):
        return self.first.init_state(router), self.second.init_state(router)

    def __call__(self, key, x, router, router_state):
        one, two = jax.random.split(key)
        first = self.first(one, x, router, router_state[0])
        second = self.second(two, jnp.tanh(x + first.outputs), router, router_state[1])
        states = first.router_state, second.router_state
        return Routed(second.outputs, (first.routing, second.routing), states)

    def losses(self, outputs, targets):
        return jnp.sum((outputs - targets) ** 2, axis=1)


def gated_loss(method, model, x, y, router_state, capacity):
    """Nothing enumerated: whom the routers choose computes."""
    outputs = model(jax.random.key(0), x, method.make_router(capacity), router_state).outputs
    return {"own_loss": jnp.mean(model.losses(outputs, y))}


def two_layers():
    def batch(key, n=32):
        x = jax.random.normal(key, (n, 3))
        return x, jnp.abs(x)

    return Task(
        name="absolute values",
        data=Data(batch, 32, batch(jax.random.key(1), 96)),
        model=TwoLayers,
        capacity=8,
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
        evaluation=Evaluation(gated_loss, "squared error", chunk=40),
        starts=2,
        steps=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["switch", "expert_choice", "loss_free"])
def test_two_routed_layers_with_an_optimiser_and_metrics_of_their_own(name):
    task, method = two_layers(), METHODS[name]
    outcome = Outcome(task.name, name, method.kind)
    start = starting_points(task, 0, task.starts)
    train_starts(compile_starts(task, method, start), outcome, task.steps)
    assert (outcome.last("own_loss") < 0.7 * outcome.curve("own_loss")[0]).all()
    assert outcome.last("demand").shape == (2, 4)
    np.testing.assert_allclose(outcome.last("demand").sum(axis=1), 32, rtol=1e-5)
    first, second = outcome.states.router_state
    if name == "loss_free":
        assert first.shape == second.shape == (2, 4)
        assert (first != second).any()
    else:
        assert (first, second) == (None, None)
