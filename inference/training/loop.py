"""Training as a pure function of a state: many steps in one compiled loop, then an evaluation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from inference.training.methods import Method
from inference.training.tasks import Task


class TrainState(NamedTuple):
    """All that the next step depends on."""

    model: Any
    optimiser: Any
    router_state: Any
    """What the method carries: a bias, of several routed layers a bias each, or a baseline."""
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


def first_state(task: Task, method: Method, model: Any, key: Array) -> TrainState:
    """The state before the first step of `model`, whose batches and draws come from `key`."""
    optimiser = task.optimiser.init(eqx.filter(model, eqx.is_array))
    return TrainState(model, optimiser, method.init_state(model), jnp.zeros((), jnp.int32), key)


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
    return state, {**task.evaluate(method, state.model, state.router_state), **window._asdict()}


def _one_step(task: Task, method: Method, state: TrainState) -> tuple[TrainState, Window]:
    for_batch, for_routing = jax.random.split(jax.random.fold_in(state.key, state.step))
    x, y = task.data.batch(for_batch)

    def loss(model: Any) -> tuple[Array, Any]:
        return method.loss(for_routing, model, x, y, state.router_state, task.capacity)

    (value, (router_state, traffic)), gradient = jax.value_and_grad(loss, has_aux=True)(state.model)
    updates, optimiser = task.optimiser.update(gradient, state.optimiser, state.model)
    model = eqx.apply_updates(state.model, updates)
    balanced = task.data.batch_size * task.experts_per_datapoint / task.num_experts
    most = {f"max_{name}": jnp.max(getattr(traffic, name)) / balanced for name in ("load", "demand")}
    window = Window(loss=value, **traffic._asdict(), **most)
    return TrainState(model, optimiser, router_state, state.step + 1, state.key), window


def _window_shape(task: Task, method: Method, state: TrainState) -> Window:
    return jax.eval_shape(lambda state: _one_step(task, method, state)[1], state)
