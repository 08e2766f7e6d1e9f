"""The routed layer: every router against buffers by hand and loops over datapoints; states, gradients, errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gumbel_moe.routing import ROUTERS, ExpertChoiceRouting, combine, dispatch, load, make_router
from models.layers import MoELayer, Routed

N, K, D, OUT, CAPACITY = 20, 4, 3, 2, 6
KEY = jax.random.key(5)


def one_expert(key):
    return eqx.nn.MLP(D, OUT, 5, 1, key=key)


def layer_and_data(k=K):
    for_experts, for_router, for_data = jax.random.split(jax.random.key(0), 3)
    experts = eqx.filter_vmap(one_expert)(jax.random.split(for_experts, k))
    network = eqx.nn.Linear(D, k, key=for_router)
    # Three times the usual weights: opinions strong enough for capacities to bind.
    network = jax.tree.map(lambda leaf: 3 * leaf, network)
    return MoELayer(experts, network), jax.random.normal(for_data, (N, D))


@pytest.fixture(scope="module")
def made():
    return layer_and_data()


def routed_by_hand(layer, x, router, state):
    """The routing, and outputs with one expert at one datapoint at a time."""
    routing = router(KEY, jax.vmap(layer.router_network)(x), *(() if state is None else (state,)))
    experts = [jax.tree.map(lambda leaf, j=j: leaf[j] if eqx.is_array(leaf) else leaf, layer.experts) for j in range(K)]
    outputs = np.zeros((N, OUT))
    if isinstance(routing, ExpertChoiceRouting):
        pairs = [(int(i), j, routing.gate[j, row]) for j in range(K) for row, i in enumerate(routing.datapoint[j])]
    else:
        pairs = [(i, int(routing.expert[i]), routing.gate[i]) for i in range(N) if routing.kept[i]]
    for i, j, gate in pairs:
        outputs[i] += np.asarray(gate * experts[j](x[i]))
    return routing, outputs


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_as_by_hand(name, made):
    layer, x = made
    router = make_router(name, CAPACITY)
    state = layer.init_state(router)
    assert (state is not None) == ROUTERS[name].stateful
    if state is not None:
        state = state + jnp.linspace(-0.2, 0.2, K)
    routed = layer(KEY, x, router, state)
    assert isinstance(routed, Routed)
    assert routed.outputs.shape == (N, OUT)
    routing, expected = routed_by_hand(layer, x, router, state)
    assert eqx.tree_equal(routed.routing, routing)
    np.testing.assert_allclose(routed.outputs, expected, rtol=1e-4, atol=1e-6)
    places = CAPACITY if ROUTERS[name].limited else N
    buffers = layer.expert_outputs(dispatch(x, routing, places))
    np.testing.assert_array_equal(routed.outputs, combine(buffers, routing, gated=True))
    if state is None:
        assert routed.router_state is None
    else:
        np.testing.assert_array_equal(routed.router_state, router.update(state, routing))
        assert (routed.router_state != state).any()


@pytest.mark.each_choice
@pytest.mark.parametrize("name", ROUTERS)
def test_jit_and_gradient(name, x64):
    layer, x = layer_and_data()
    router = make_router(name, CAPACITY)
    state = layer.init_state(router)
    width = jnp.float64 if x64 else jnp.float32
    assert x.dtype == width
    eager = layer(KEY, x, router, state)
    compiled = eqx.filter_jit(lambda layer: layer(KEY, x, router, state))(layer)
    assert compiled.outputs.dtype == width
    np.testing.assert_allclose(compiled.outputs, eager.outputs, rtol=1e-4, atol=1e-6)
    assert (load(compiled.routing) == load(eager.routing)).all()

    gradient = eqx.filter_jit(eqx.filter_grad(lambda layer: jnp.sum(layer(KEY, x, router, state).outputs ** 2)))(layer)
    leaves = jax.tree.leaves(eqx.filter(gradient, eqx.is_array))
    assert all(leaf.dtype == width and jnp.isfinite(leaf).all() for leaf in leaves)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(eqx.filter(gradient.experts, eqx.is_array)))
    through_gates = bool((gradient.router_network.weight != 0).any())
    assert through_gates == (ROUTERS[name].kind == "biased")


@pytest.mark.parametrize("name", ["skip", "gumbel_matching_uncorrected", "switch"])
def test_two_experts_of_every_datapoint(name, made):
    """Outputs one by one as from the experts themselves, and their sum: by weight where the router draws."""
    layer, x = made
    router = make_router(name, 2 * CAPACITY, experts_per_datapoint=2)
    outputs, routing, _ = layer(KEY, x, router, each=True)
    assert outputs.shape == (N, 2, OUT)
    everybody = layer.expert_outputs(jnp.broadcast_to(x, (K, N, D)))
    own = np.asarray(everybody)[np.clip(routing.expert, 0, K - 1), np.arange(N)[:, None]]
    kept, gate = np.asarray(routing.kept)[..., None], np.asarray(routing.gate)[..., None]
    np.testing.assert_allclose(outputs, np.where(kept, gate * own, 0), rtol=1e-4, atol=1e-6)
    factor = np.asarray(routing.weight)[..., None] if name == "skip" else gate * kept
    np.testing.assert_allclose(layer(KEY, x, router).outputs, (factor * own).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_states_balance_from_batch_to_batch(made):
    layer, x = made
    router = make_router("quantile_balancing", N)
    state = layer.init_state(router)
    first = layer(KEY, x, router, state)
    second = layer(KEY, x, router, first.router_state)
    assert load(second.routing).max() < load(first.routing).max()


@pytest.mark.parametrize("capacity", [1, 3 * N, (7, 1, 9, 3)])
def test_buffers_hold_what_the_router_keeps(capacity, made):
    layer, x = made
    routed = layer(KEY, x, make_router("skip", capacity))
    assert (load(routed.routing) <= np.broadcast_to(capacity, K)).all()
    kept = np.asarray(routed.routing.kept)
    assert (np.asarray(routed.outputs) != 0).any(axis=1).tolist() == kept.tolist()


@pytest.mark.parametrize("name", ["gumbel_matching", "expert_choice", "loss_free"])
def test_padding_takes_no_place(name, made):
    layer, x = made
    mask = jnp.arange(N) < 15
    router = make_router(name, 5)
    padded = jnp.where(mask[:, None], x, jnp.nan)
    routed = layer(KEY, padded, router, layer.init_state(router), mask=mask)
    assert not np.asarray(routed.outputs)[15:].any()
    assert jnp.isfinite(routed.outputs).all()
    np.testing.assert_array_equal(routed.routing.mask, mask)


def test_many_layers_at_once(made):
    layer, x = made
    router = make_router("switch", CAPACITY)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]) if eqx.is_array(leaf) else leaf, layer)
    outputs = eqx.filter_vmap(lambda layer: layer(KEY, x, router).outputs)(several)
    np.testing.assert_allclose(outputs[0], layer(KEY, x, router).outputs, rtol=1e-4, atol=1e-6)
    assert outputs.shape == (2, N, OUT)


def test_no_datapoints(made):
    layer, _ = made
    assert layer(KEY, jnp.zeros((0, D)), make_router("skip", 2)).outputs.shape == (0, OUT)


def test_errors(made):
    layer, x = made
    with pytest.raises(TypeError, match=r"router must be callable, such as make_router.*got 'skip'"):
        layer(KEY, x, "skip")
    with pytest.raises(ValueError, match=r"router_state must be given for LossFreeRouter\(capacity=6"):
        layer(KEY, x, make_router("loss_free", CAPACITY))
    with pytest.raises(ValueError, match=r"router_state must be None for SwitchRouter\(capacity=6\)"):
        layer(KEY, x, make_router("switch", CAPACITY), jnp.zeros(K))
    with pytest.raises(ValueError, match="bias must be floats of shape"):
        layer(KEY, x, make_router("loss_free", CAPACITY), jnp.zeros(K + 1))
    with pytest.raises(ValueError, match="capacity"):
        layer(KEY, x, make_router("base", N // K - 1))
    with pytest.raises(TypeError, match="routing must be a Routing"):
        layer(KEY, x, lambda key, logits, mask: logits)
    with pytest.raises(ValueError, match=r"router_network must give 4 logits, one per expert, got shape \(5,\)"):
        MoELayer(layer.experts, eqx.nn.Linear(D, K + 1, key=KEY))(KEY, x, make_router("switch", 9))
    with pytest.raises(ValueError, match="experts must have array leaves with a first axis"):
        MoELayer(one_expert(KEY), layer.router_network)
    with pytest.raises(ValueError, match="experts must have array leaves"):
        MoELayer(jax.nn.relu, layer.router_network)
    with pytest.raises(TypeCheckError):  # by the hook of these tests; in use, JAX says so
        layer(KEY, x[0], make_router("switch", 9))
