"""Training as a function of a state: steps add up, starts are independent, both float widths."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inference.compare._references import single_network
from inference.training.loop import advance, first_state
from inference.training.methods import METHODS
from inference.training.starts import starting_points
from inference.training.tasks import TASKS


@pytest.fixture(scope="module")
def tasks():
    return {name: make(0) for name, make in TASKS.items()}


def start(task, name, seed=0):
    return first_state(task, METHODS[name], task.model(jax.random.key(seed)), jax.random.key(seed + 100))


def test_steps_add_up(tasks):
    task, method = tasks["toy"], METHODS["loss_free"]
    run = jax.jit(lambda state, n: advance(task, method, state, n))
    at_once, _ = run(start(task, "loss_free"), jnp.int32(7))
    halfway, _ = run(start(task, "loss_free"), jnp.int32(3))
    in_two, window = run(halfway, jnp.int32(4))
    assert int(in_two.step) == 7
    assert eqx.tree_equal(at_once, in_two)
    assert bool(jnp.any(in_two.router_state != 0))
    assert bool(jnp.isfinite(window.loss))


def test_no_steps_change_nothing(tasks):
    task = tasks["toy"]
    state, window = jax.jit(lambda state: advance(task, METHODS["skip"], state, 0))(start(task, "skip"))
    assert eqx.tree_equal(state, start(task, "skip"))
    assert bool(jnp.isnan(window.loss))


def test_training_lowers_the_loss_in_both_widths(x64):
    task = replace(TASKS["toy"](0), optimiser=optax.adam(0.05))
    run = jax.jit(lambda state, n: advance(task, METHODS["skip"], state, n))
    state = start(task, "skip")
    assert state.model.experts.slope.dtype == (jnp.float64 if x64 else jnp.float32)
    state, early = run(state, jnp.int32(5))
    state, _ = run(state, jnp.int32(100))
    state, late = run(state, jnp.int32(5))
    assert state.model.experts.slope.dtype == (jnp.float64 if x64 else jnp.float32)
    assert late.loss < 0.5 * early.loss


def test_first_starts_do_not_depend_on_how_many(tasks):
    few, many = starting_points(tasks["toy"], 3, 2), starting_points(tasks["toy"], 3, 5)
    np.testing.assert_array_equal(few.models.experts.slope, many.models.experts.slope[:2])
    np.testing.assert_array_equal(jax.random.key_data(few.keys), jax.random.key_data(many.keys[:2]))
    assert len(np.unique(many.models.experts.slope[:, 0])) == 5


def test_places_hold_a_batch(tasks):
    for task in [*tasks.values(), single_network(tasks["digits"])]:
        x, y = jax.eval_shape(task.data.batch, jax.random.key(0))
        assert x.shape[0] == y.shape[0] == task.data.batch_size == task.capacity * task.num_experts
        assert jax.eval_shape(task.model, jax.random.key(0)).num_experts == task.num_experts
        number = len(task.data.test[0])
        assert task.capacity_among(number) * task.num_experts >= number
