"""Estimators where they are hardest to believe: regions and a sharp random instance, at 20,000 draws.

Each case passes `check_unbiased` and has a mistake beside it that does not. False-fail rate 1e-6 each; seeds are fixed.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.estimators import StudentExperts, exact_loss, score_function_loss, shared_network
from gumbel_moe.routing import GumbelMatchingRouter, SkipRouter
from models.data import make_regions
from models.regions import RegionsMixture

pytestmark = pytest.mark.slow
KEY = jax.random.key(4)
DRAWS = {"draws": 5000, "chains": 4}
N, K = 64, 8
PLACES = N // K
NETWORK = shared_network(K, 1, hidden=(32,))
STUDENT = StudentExperts(NETWORK.apply, optax.sgd(2.0), NETWORK.decode)
ROUTERS = {"skip": SkipRouter(PLACES), "gumbel_matching": GumbelMatchingRouter(PLACES)}
TEACHER = make_regions(jax.random.key(7))
X, Y = TEACHER.sample(jax.random.key(8), N)


def regions(steps):
    """A model that has been trained for so many steps on the exact gradient."""
    model, optimiser = RegionsMixture(jax.random.key(9)), optax.adam(1e-2)

    def step(carry, number):
        model, state = carry
        x, y = TEACHER.sample(jax.random.fold_in(KEY, number), 256)
        gradient = jax.jit(jax.grad(lambda m: exact_loss(m.logits(x), m.all_losses(x, y))))(model)
        updates, state = optimiser.update(gradient, state)
        return (eqx.apply_updates(model, updates), state), None

    start = model, optimiser.init(eqx.filter(model, eqx.is_array))
    return jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(steps))[0][0])()


def sharp():
    """A random instance whose router is sharp, and wants more of some experts than they hold."""
    model = RegionsMixture(jax.random.key(10))
    bias = 4.0 * jnp.arange(K) / K
    return eqx.tree_at(
        lambda m: (m.router_network.weight, m.router_network.bias), model, (6 * model.router_network.weight, bias)
    )


MODELS = {"initial": lambda: regions(0), "trained": lambda: regions(4000), "sharp": sharp}


@pytest.fixture(scope="module", params=MODELS)
def problem(request):
    model = MODELS[request.param]()
    exact = jax.jit(jax.grad(lambda m: exact_loss(m.logits(X), m.all_losses(X, Y))))(model)
    if request.param != "initial":
        demand = jnp.sum(jax.nn.softmax(model.logits(X)), axis=0)
        assert demand.max() > 1.5 * PLACES
    state = STUDENT.init(NETWORK.init(KEY, 8))
    return model, exact, state


def passed(problem, loss):
    model, exact, _ = problem
    return check_unbiased(jax.jit(lambda key: jax.grad(loss)(model, key)), exact, KEY, **DRAWS).passed


@pytest.mark.parametrize("name", ROUTERS)
def test_with_a_student(name, problem):
    state = problem[2]

    def drawn(model, key):
        outputs, routing, _ = model(key, X, ROUTERS[name])
        return outputs, routing, lambda outputs: model.losses(outputs, Y)

    def right(model, key):
        outputs, routing, losses_of = drawn(model, key)
        return STUDENT.loss(state, routing, outputs, X, losses_of)[0]

    def updated_first(model, key):
        outputs, routing, losses_of = drawn(model, key)
        now = STUDENT.update(state, routing, outputs, X)
        return score_function_loss(routing, losses_of(outputs), STUDENT.baseline(now, X, losses_of))

    def other_weights(model, key):
        outputs, routing, losses_of = drawn(model, key)
        routing = routing._replace(weight=routing.kept.astype(jnp.float32))
        return score_function_loss(routing, losses_of(outputs), STUDENT.baseline(state, X, losses_of))

    assert passed(problem, right)
    assert not passed(problem, updated_first)
    assert not passed(problem, other_weights)
