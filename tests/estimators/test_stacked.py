"""Losses of stacked layers, token by token: the product of the weights is unbiased, what people try first is not."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import ExpertChoiceRouter, GumbelMatchingRouter, IndependentRouter, SkipRouter

KEY = jax.random.key(0)
N, K, DIM = 8, 2, 3
X = jax.random.normal(jax.random.key(1), (N, DIM))
Y = jnp.sin(2 * X[:, 0])
PARAMS = {
    "routers": jax.random.normal(jax.random.key(2), (2, DIM, K)),
    "experts": jax.random.normal(jax.random.key(3), (2, K, DIM, DIM)) * 0.7,
}
DRAWS = {"draws": 4000, "chains": 4}  # an unbiased estimator fails with probability 1e-6; seeds are fixed


def layer(params, number, x, expert):
    """Residual, each datapoint through its own expert."""
    weight = params["experts"][number][jnp.clip(expert, 0, K - 1)]
    return x + jnp.tanh(jnp.einsum("nd,nde->ne", x, weight))


def loss_of(x):
    return (x.sum(axis=1) - Y) ** 2


def exact(params):
    """The mean over the experts of both layers, each path with its probability, by enumeration."""
    total = 0.0
    first = jax.nn.softmax(X @ params["routers"][0])
    for j in range(K):
        hidden = layer(params, 0, X, jnp.full(N, j))
        second = jax.nn.softmax(hidden @ params["routers"][1])
        for m in range(K):
            total += jnp.mean(first[:, j] * second[:, m] * loss_of(layer(params, 1, hidden, jnp.full(N, m))))
    return total


def estimate(router, combine):
    def loss(params, key):
        keys, x, routings = jax.random.split(key), X, []
        for number in range(2):
            routing = router(keys[number], x @ params["routers"][number])
            x = layer(params, number, x, routing.expert)
            routings.append(routing)
        return combine(routings, loss_of(x))

    return jax.jit(lambda key: jax.grad(loss)(PARAMS, key))


def passed(router, combine):
    return check_unbiased(estimate(router, combine), jax.jit(jax.grad(exact))(PARAMS), KEY, **DRAWS).passed


ROUTERS = {"independent": IndependentRouter(), "skip": SkipRouter(3), "gumbel_matching": GumbelMatchingRouter(4)}
SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
EACH = pytest.mark.parametrize("name", ["skip", SLOWLY("independent"), SLOWLY("gumbel_matching")])


@EACH
def test_all_layers_together_are_unbiased(name):
    assert passed(ROUTERS[name], score_function_loss)
    assert passed(ROUTERS[name], lambda routings, losses: score_function_loss(tuple(routings), losses, jnp.ones(N)))


@EACH
def test_the_last_layer_alone_is_biased(name):
    assert not passed(ROUTERS[name], lambda routings, losses: score_function_loss(routings[-1], losses))


@pytest.mark.slow
@EACH
def test_the_mean_of_two_losses_is_biased(name):
    def mean(routings, losses):
        return sum(score_function_loss(routing, losses) for routing in routings) / 2

    assert not passed(ROUTERS[name], mean)


def test_one_layer_in_a_sequence_is_that_layer():
    routing = SkipRouter(3)(KEY, X @ PARAMS["routers"][0])
    losses = jnp.arange(N, dtype=jnp.float32)
    assert score_function_loss([routing], losses, 0.5) == score_function_loss(routing, losses, 0.5)


def test_errors():
    routing = SkipRouter(3)(KEY, X @ PARAMS["routers"][0])
    fewer = SkipRouter(3)(KEY, X[:4] @ PARAMS["routers"][0])
    losses = jnp.zeros(N)
    with pytest.raises(
        ValueError, match=r"same datapoints in every layer, at least one, got shapes \[\(8,\), \(4,\)\]"
    ):
        score_function_loss([routing, fewer], losses)
    with pytest.raises(ValueError, match="at least one, got shapes"):
        score_function_loss([], losses)
    with pytest.raises(ValueError, match=r"baseline must be a scalar or have shape \(8,\), got \(8, 2\)"):
        score_function_loss([routing, routing], losses, jnp.zeros((N, K)))
    several = ExpertChoiceRouter(2)(KEY, X @ PARAMS["routers"][0])
    with pytest.raises(TypeError, match="or a sequence of them, got ExpertChoiceRouting"):
        score_function_loss(several, losses)
    with pytest.raises(TypeError, match="or a sequence of them, got list"):
        score_function_loss([routing, several], losses)
