"""Training as a function of a state: steps add up, starts are independent, both float widths."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference._loop import advance, first_state
from inference._starts import starting_points
from inference._tasks import TASKS, single_network
from inference.methods import METHODS


@pytest.fixture(scope="module")
def tasks():
    return {name: make(0) for name, make in TASKS.items()}


def start(task, name, seed=0):
    return first_state(task, METHODS[name], task.init(jax.random.key(seed)), jax.random.key(seed + 100))


def test_steps_add_up(tasks):
    task, method = tasks["toy"], METHODS["loss_free"]
    run = jax.jit(lambda state, n: advance(task, method, state, n))
    at_once, _ = run(start(task, "loss_free"), jnp.int32(7))
    halfway, _ = run(start(task, "loss_free"), jnp.int32(3))
    in_two, window = run(halfway, jnp.int32(4))
    assert int(in_two.step) == 7
    assert eqx.tree_equal(at_once, in_two)
    assert bool(jnp.any(in_two.memory != 0))
    assert bool(jnp.isfinite(window.loss))


def test_no_steps_change_nothing(tasks):
    task = tasks["toy"]
    state, window = jax.jit(lambda state: advance(task, METHODS["skip"], state, 0))(start(task, "skip"))
    assert eqx.tree_equal(state, start(task, "skip"))
    assert bool(jnp.isnan(window.loss))


def test_training_lowers_the_loss_in_both_widths(x64):
    task = replace(TASKS["toy"](0), learning_rate=0.05)
    run = jax.jit(lambda state, n: advance(task, METHODS["skip"], state, n))
    state = start(task, "skip")
    assert state.model.slope.dtype == (jnp.float64 if x64 else jnp.float32)
    state, early = run(state, jnp.int32(5))
    state, _ = run(state, jnp.int32(100))
    state, late = run(state, jnp.int32(5))
    assert state.model.slope.dtype == (jnp.float64 if x64 else jnp.float32)
    assert late.loss < 0.5 * early.loss


def test_first_starts_do_not_depend_on_how_many(tasks):
    few, many = starting_points(tasks["toy"], 3, 2), starting_points(tasks["toy"], 3, 5)
    np.testing.assert_array_equal(few.models.slope, many.models.slope[:2])
    np.testing.assert_array_equal(jax.random.key_data(few.keys), jax.random.key_data(many.keys[:2]))
    assert len(np.unique(many.models.slope[:, 0])) == 5


def test_places_hold_a_batch(tasks):
    for task in [*tasks.values(), single_network(tasks["digits"])]:
        x, y = jax.eval_shape(task.batch, jax.random.key(0))
        assert x.shape[0] == y.shape[0] == task.batch_size == task.capacity * task.num_experts
        assert jax.eval_shape(task.init, jax.random.key(0)).num_experts == task.num_experts
        assert task.test_capacity * task.num_experts >= task.test[0].shape[0]
