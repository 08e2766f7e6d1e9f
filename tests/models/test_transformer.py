"""The language model: causal, with every router, skipped tokens on the residual path, float32 routers."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import ROUTERS, BaseRouter, Routing, SkipRouter, load, make_router
from models.transformer import ArgmaxRouter, Block, LanguageModel, PriceKeeper, Sizes

SIZES = Sizes(layers=2, width=8, heads=2, experts=4, expert_width=12, vocabulary=11)
TOKENS = jax.random.randint(jax.random.key(1), (2, 6), 0, 11)
KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def model():
    return LanguageModel(jax.random.key(0), SIZES)


@pytest.fixture(scope="module")
def dense():
    return LanguageModel(jax.random.key(0), SIZES.dense_twin())


def test_dense_model_is_causal(dense):
    run = jax.jit(lambda tokens: dense(KEY, tokens).logits)
    logits, changed = run(TOKENS), run(TOKENS.at[0, 3].add(1))
    np.testing.assert_array_equal(logits[0, :3], changed[0, :3])
    np.testing.assert_array_equal(logits[1], changed[1])
    assert (logits[0, 3:] != changed[0, 3:]).any(axis=1).all()


@pytest.mark.slow
def test_scan_is_a_loop(dense):
    x = dense.embedding[TOKENS]
    for layer in range(2):
        x, _ = jax.tree.map(lambda leaf, layer=layer: leaf[layer], dense.blocks)(KEY, x)
    expected = jax.vmap(jax.vmap(dense.norm))(x) @ dense.embedding.T
    np.testing.assert_allclose(dense(KEY, TOKENS).logits, expected, rtol=1e-4, atol=1e-5)


def test_skipped_tokens_keep_their_residual_path():
    block = Block(jax.random.key(0), SIZES)
    x = jax.random.normal(jax.random.key(1), (2, 6, 8))

    @jax.jit
    def run(x):
        return x + block.attend(x), *block(KEY, x, SkipRouter(1))

    attended, out, record = run(x)
    kept = record.routing.kept.reshape(2, 6)
    assert 0 < int(kept.sum()) <= 4
    np.testing.assert_array_equal(out[~kept], attended[~kept])
    assert (out[kept] != attended[kept]).any(axis=1).all()


QUICK = {"gumbel_matching", "expert_choice", "loss_free"}  # a kind each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ROUTERS]
)
def test_every_router_has_a_state_for_every_layer(name, model):
    router = make_router(name, 3)
    states = model.init_states(router)
    forward = jax.eval_shape(lambda states: model(KEY, TOKENS, router, states), states)
    assert forward.logits.shape == (2, 6, 11)
    assert jax.tree.leaves(forward.record.routing)[0].shape[0] == 2
    assert jax.tree.map(jnp.shape, states) == jax.tree.map(lambda leaf: leaf.shape, forward.record.router_state)
    assert (states is not None) == ROUTERS[name].stateful


def test_routers_are_float32_whatever_the_activations():
    narrow = LanguageModel(jax.random.key(0), replace(SIZES, activations="bfloat16", floor=0.1))
    forward = jax.eval_shape(lambda: narrow(KEY, TOKENS, SkipRouter(3)))
    assert forward.record.routing.log_probs.dtype == forward.logits.dtype == jnp.float32
    block = Block(jax.random.key(0), narrow.sizes)
    assert jax.eval_shape(lambda x: block(KEY, x, SkipRouter(3))[0], jnp.zeros((2, 6, 8), jnp.bfloat16)).dtype == (
        jnp.bfloat16
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("float32")}
    probs = jnp.exp(block.experts.router_network(100 * jnp.ones(8)))
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-5)
    assert probs.min() >= 0.0249


def test_sizes(model):
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    routers, norms = 2 * 4 * 8, 5 * 8
    assert count == SIZES.parameters + routers + norms
    assert SIZES.dense_twin().active_parameters == SIZES.dense_twin().parameters == SIZES.active_parameters
    assert eqx.is_array(model.embedding)
    for wrong, message in (
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"heads": 3}, "heads must divide the width into even parts, got 3 of width 8"),
        ({"floor": 1.0}, "floor must be"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SIZES, **wrong)
    with pytest.raises(ValueError, match="router must be given for 4 experts"):
        jax.eval_shape(lambda: model(KEY, TOKENS))


def test_prices_of_training_route_single_tokens():
    """At the prices of its own batch the largest `a - u` is the matching, and so it is for each token alone."""
    logits = jax.random.normal(jax.random.key(3), (12, 3)) + jnp.array([1.0, 0.0, -1.0])
    keeper = PriceKeeper(BaseRouter(4))
    state = keeper.init(3)
    np.testing.assert_array_equal(keeper.prices(state), jnp.zeros(3))
    routing = keeper(KEY, logits, state)
    state = keeper.update(keeper.update(state, routing), routing)
    prices = keeper.prices(state)
    exact = solve_matching(routing.log_probs, 4).prices
    np.testing.assert_allclose(prices, exact - exact.mean(), rtol=1e-5, atol=1e-6)
    # At optimal prices a token may be between two experts: a little of the way to the next price decides.
    together = ArgmaxRouter(12, "sigmoid")(KEY, logits, prices)
    own = jnp.take_along_axis(logits - prices, routing.expert[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(own, (logits - prices).max(axis=1), atol=1e-5)
    np.testing.assert_allclose(together.gate, jax.nn.sigmoid(logits[jnp.arange(12), together.expert]), rtol=1e-5)
    plain = ArgmaxRouter(12)(KEY, logits, jnp.zeros(3))
    assert int(load(plain).max()) > 4
    np.testing.assert_array_equal(plain.gate, 1)
    others = ArgmaxRouter(12, "softmax")(KEY, logits.at[:5].set(0), prices)  # to which no token looks
    np.testing.assert_array_equal(others.expert[5:], together.expert[5:])
    np.testing.assert_allclose(others.gate, jnp.exp(others.log_prob), rtol=1e-5)
    failed = routing._replace(log_probs=routing.log_probs * jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(keeper.update)(state, failed), state)
    assert isinstance(together, Routing)
