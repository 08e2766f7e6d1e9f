"""Training as a pure function of a state: many steps in one compiled loop, then an evaluation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from inference._evaluate import evaluate
from inference._tasks import Task
from inference.methods import Method
from models import Mixture


class TrainState(NamedTuple):
    """All that the next step depends on."""

    model: Mixture
    optimiser: Any
    memory: Any
    """What the method carries: a baseline, a bias."""
    step: Array
    key: Array
    """Never changes; step `t` uses `fold_in(key, t)`, so that a resumed run draws what an uninterrupted one would."""


class Window(NamedTuple):
    """Means over the batches of the steps just taken."""

    loss: Array
    """`()` the training loss, as the method defines it."""
    demand: Array
    """`(k,)` datapoints sent to each expert."""
    load: Array
    """`(k,)` datapoints each expert computed."""
    skipped: Array
    """`()` fraction of the datapoints that no expert computed."""
    max_load: Array
    """`()` the largest load of a batch over the balanced load `n / k`."""
    max_demand: Array
    """`()` the same of the demand."""


def first_state(task: Task, method: Method, model: Mixture, key: Array) -> TrainState:
    """The state before the first step of `model`, whose batches and draws come from `key`."""
    memory = method.memory(task.num_experts)
    optimiser = _optimiser(task).init(eqx.filter(model, eqx.is_array))
    return TrainState(model, optimiser, memory, jnp.zeros((), jnp.int32), key)


def advance(task: Task, method: Method, state: TrainState, num_steps: Array) -> tuple[TrainState, Window]:
    """`num_steps` steps, a number that need not be known when this is compiled; the means over none are NaN."""

    def body(_: Array, carry: tuple[TrainState, Window]) -> tuple[TrainState, Window]:
        state, total = carry
        state, window = _one_step(task, method, state)
        return state, jax.tree.map(jnp.add, total, window)

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _window_shape(task, method, state))
    state, total = jax.lax.fori_loop(0, num_steps, body, (state, nothing))
    return state, jax.tree.map(lambda leaf: leaf / num_steps, total)


def advance_and_evaluate(
    task: Task, method: Method, state: TrainState, num_steps: Array
) -> tuple[TrainState, dict[str, Array]]:
    """`advance`, then the test metrics of the model it led to and the means over the way."""
    state, window = advance(task, method, state, num_steps)
    return state, {**evaluate(task, method, state.model, state.memory), **window._asdict()}


def _one_step(task: Task, method: Method, state: TrainState) -> tuple[TrainState, Window]:
    for_batch, for_routing = jax.random.split(jax.random.fold_in(state.key, state.step))
    x, y = task.batch(for_batch)

    def loss(model: Mixture) -> tuple[Array, Any]:
        return method.loss(for_routing, model, x, y, state.memory, task.capacity)

    (value, (memory, traffic)), gradient = jax.value_and_grad(loss, has_aux=True)(state.model)
    updates, optimiser = _optimiser(task).update(gradient, state.optimiser)
    model = eqx.apply_updates(state.model, updates)
    balanced = x.shape[0] / task.num_experts
    window = Window(
        loss=value,
        demand=traffic.demand,
        load=traffic.load,
        skipped=traffic.skipped,
        max_load=jnp.max(traffic.load) / balanced,
        max_demand=jnp.max(traffic.demand) / balanced,
    )
    return TrainState(model, optimiser, memory, state.step + 1, state.key), window


def _window_shape(task: Task, method: Method, state: TrainState) -> Window:
    return jax.eval_shape(lambda state: _one_step(task, method, state)[1], state)


def _optimiser(task: Task) -> optax.GradientTransformation:
    return optax.adam(task.learning_rate)
