"""Dispatch against a loop, combine as its exact inverse, and datapoints that find no row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gumbel_moe.routing import ExpertChoiceRouter, IndependentRouter, Routing, combine, dispatch
from tests.routing import routers

KEY = routers.KEY
N, K = 7, 3


def make(expert, kept):
    ones = jnp.ones(len(expert))
    table = jnp.full((len(expert), K), -jnp.log(K))
    return Routing(jnp.asarray(expert, jnp.int32), jnp.asarray(kept), ones, ones, ones, table)


def buffers_by_loop(tokens, expert, kept, capacity):
    buffers = np.zeros((K, capacity, *tokens.shape[1:]), tokens.dtype)
    used = [0] * K
    for i, j in enumerate(expert):
        if kept[i]:
            buffers[j, used[j]] = tokens[i]
            used[j] += 1
    return buffers


assignments = st.tuples(
    st.lists(st.integers(0, K - 1), min_size=N, max_size=N), st.lists(st.booleans(), min_size=N, max_size=N)
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(assignments, st.sampled_from([N, N + 2]))
def test_combine_undoes_dispatch(assignment, capacity):
    expert, kept = assignment
    routing = make(expert, kept)
    tokens = np.arange(1.0, 2 * N + 1, dtype=np.float32).reshape(N, 2) / 3
    buffers = dispatch(tokens, routing, capacity)
    np.testing.assert_array_equal(buffers, buffers_by_loop(tokens, expert, kept, capacity))
    np.testing.assert_array_equal(combine(buffers, routing), np.where(np.asarray(kept)[:, None], tokens, 0))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(assignments)
def test_too_few_rows_never_pass_silently(assignment):
    expert, kept = assignment
    routing = make(expert, kept)
    tokens = jnp.arange(1.0, N + 1)
    fits = np.array(kept) & (buffers_by_place(expert, kept) < 2)
    expected = np.where(fits, tokens, np.where(kept, np.nan, 0))
    np.testing.assert_array_equal(there_and_back(tokens, routing), expected)
    if np.isnan(expected).any():
        with pytest.raises(ValueError, match=r"capacity must hold the kept datapoints .* got 2 rows"):
            dispatch(tokens, routing, 2)
        with pytest.raises(ValueError, match=r"capacity must hold the kept datapoints .* got 2 rows"):
            combine(jnp.zeros((K, 2)), routing)
    else:
        np.testing.assert_array_equal(combine(dispatch(tokens, routing, 2), routing), expected)


@jax.jit
def there_and_back(tokens, routing):
    return combine(dispatch(tokens, routing, 2), routing)


def buffers_by_place(expert, kept):
    """Place of every kept datapoint in its expert's queue."""
    seen = [0] * K
    place = []
    for j, stays in zip(expert, kept, strict=True):
        place.append(seen[j])
        seen[j] += stays
    return np.array(place)


@pytest.mark.parametrize("name", routers.ONE_EXPERT)
def test_round_trip_of_every_router(name):
    routing = routers.ALL[name](KEY, routers.logits())
    tokens = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.result_type(float))
    rows = 8 if name == "independent" else 3
    back = combine(dispatch(tokens, routing, rows), routing)
    np.testing.assert_array_equal(back, jnp.where(routing.kept[:, None], tokens, 0))
    gated = combine(dispatch(tokens, routing, rows), routing, gated=True)
    np.testing.assert_array_equal(gated, jnp.where(routing.kept[:, None], tokens * routing.gate[:, None], 0))


@pytest.mark.parametrize("trailing", [(), (1,), (2, 3), (0,)])
def test_any_trailing_shape(trailing):
    routing = routers.ALL["skip"](KEY, routers.logits())
    tokens = jnp.arange(1.0, 1 + 8 * np.prod(trailing, dtype=int)).reshape(8, *trailing)
    buffers = dispatch(tokens, routing, 2)
    assert buffers.shape == (3, 2, *trailing)
    kept = routing.kept.reshape(8, *(1 for _ in trailing))
    np.testing.assert_array_equal(combine(buffers, routing), jnp.where(kept, tokens, 0))


@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.bfloat16])
def test_dispatch_of_other_dtypes(dtype):
    routing = routers.ALL["switch"](KEY, routers.logits())
    buffers = dispatch(jnp.ones(8, dtype), routing, 2)
    assert buffers.dtype == dtype
    assert int(buffers.astype(int).sum()) == int(routing.kept.sum())


def test_gated_keeps_the_dtype_of_the_buffers():
    routing = routers.ALL["switch"](KEY, routers.logits())
    assert combine(jnp.ones((3, 2, 4), jnp.bfloat16), routing, gated=True).dtype == jnp.bfloat16


def test_gradients():
    routing = routers.ALL["switch"](KEY, routers.logits())
    tokens = jnp.arange(1.0, 9)
    through = jax.jit(jax.grad(lambda x: (combine(dispatch(x, routing, 2), routing) ** 2).sum()))(tokens)
    np.testing.assert_allclose(through, jnp.where(routing.kept, 2 * tokens, 0))

    def own_way(logits):
        routing = routers.ALL["switch"](KEY, logits)
        return (combine(dispatch(tokens, routing, 2), routing, gated=True)).sum()

    def by_hand(logits):
        p = jax.nn.softmax(logits)[jnp.arange(8), routing.expert]
        return (jnp.where(routing.kept, p, 0) * tokens).sum()

    logits = routers.logits()
    np.testing.assert_allclose(jax.jit(jax.grad(own_way))(logits), jax.jit(jax.grad(by_hand))(logits), atol=1e-6)


def test_empty_rows_and_skipped_datapoints_pass_no_gradient():
    routing = make([0, 0, 1, 1, 1, 2, 2], [True, False, True, True, False, False, False])
    gradient = jax.jit(jax.grad(lambda b: combine(b, routing).sum()))(jnp.full((K, 4), jnp.inf))
    assert gradient.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("name", ["skip", "expert_choice"])
def test_vmap(name):
    router = routers.ALL[name]
    logits = jnp.stack([routers.logits(seed=s) for s in range(3)])
    tokens = jnp.arange(1.0, 49).reshape(3, 8, 2)

    def layer(key, logits, tokens):
        routing = router(key, logits)
        buffers = dispatch(tokens, routing, 2)
        return combine(buffers * 2, routing, gated=True)

    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(layer))(keys, logits, tokens)
    for i in range(3):
        np.testing.assert_allclose(together[i], layer(keys[i], logits[i], tokens[i]), rtol=1e-6)


def test_a_failed_assignment_becomes_nan_or_an_error():
    logits = routers.logits().at[:6, :2].set(-jnp.inf)
    routing = jax.jit(routers.ALL["base"])(KEY, logits)
    back = jax.jit(lambda r: combine(dispatch(jnp.ones(8), r, 3), r))(routing)
    assert jnp.isnan(back).all()
    with pytest.raises(ValueError, match="routing holds no assignment"):
        dispatch(jnp.ones(8), routing, 3)


def test_memory_does_not_grow_with_n_squared():
    n, k = 4096, 8
    tokens, logits = jnp.zeros((n, 1)), jnp.zeros((n, k))

    def layer(key, tokens, logits):
        routing = IndependentRouter()(key, logits)
        return combine(dispatch(tokens, routing, n // 4), routing)

    memory = jax.jit(layer).lower(KEY, tokens, logits).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 20 * n * k * 4  # n * n * 4 would be 64 MiB, 25 times as much


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: dispatch(jnp.zeros((7, 2)), r, 8), ValueError, "tokens must have 8 rows"),
        (lambda r: dispatch(jnp.zeros(()), r, 8), ValueError, "tokens must have 8 rows"),
        (lambda r: dispatch(jnp.zeros((8, 2)), r, 0), ValueError, "capacity must be a positive int"),
        (lambda r: dispatch(jnp.zeros((8, 2)), r, 2.5), ValueError, "capacity must be a positive int"),
        (lambda r: dispatch(jnp.zeros((8, 2)), tuple(r), 8), TypeError, "routing must be a Routing or"),
        (lambda r: combine(jnp.zeros((4, 8)), r), ValueError, r"buffers must have shape \(3, capacity, ...\)"),
        (lambda r: combine(jnp.zeros(3), r), ValueError, r"buffers must have shape \(3, capacity, ...\)"),
        (lambda r: combine(jnp.zeros((3, 8), int), r), TypeError, "buffers must be floating point"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(IndependentRouter()(KEY, routers.logits()))


def test_bad_input_of_expert_choice():
    routing = ExpertChoiceRouter(2)(KEY, routers.logits())
    with pytest.raises(ValueError, match="capacity must be at least 2, the places per expert in routing, got 1"):
        dispatch(jnp.zeros(8), routing, 1)
    with pytest.raises(ValueError, match="buffers must have at least 2 rows per expert"):
        combine(jnp.zeros((3, 1)), routing)


def test_batched_routing_is_refused():
    routing = jax.vmap(IndependentRouter())(jax.random.split(KEY, 2), jnp.stack([routers.logits()] * 2))
    with pytest.raises(ValueError, match=r"log_probs of shape \(n, k\), got \(2, 8, 3\); use jax.vmap"):
        dispatch(jnp.zeros((2, 8)), routing, 8)


def test_no_datapoint():
    routing = IndependentRouter()(KEY, jnp.zeros((0, 3)))
    buffers = dispatch(jnp.zeros((0, 2)), routing, 4)
    assert buffers.shape == (3, 4, 2)
    assert combine(buffers, routing).shape == (0, 2)
