"""Several experts for every datapoint: the record, what is chosen and dropped, buffers and loads, against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import (
    BaseRouter,
    IndependentRouter,
    LossFreeRouter,
    QuantileBalancingRouter,
    Routing,
    SkipRouter,
    SwitchRouter,
    load,
    load_balancing_loss,
    make_router,
)
from gumbel_moe.routing._unordered_set import of_two
from tests.routing import routers, several
from tests.routing.several import CHOOSING, WEIGHTED, K, M, N, first_come

KEY = routers.KEY
some = several.SOME


@some
def test_fields(name, x64):
    logits, router = several.logits(), several.ALL[name]
    routing = router(KEY, logits)
    assert isinstance(routing, Routing)
    assert routing.experts_per_datapoint == M
    width = jnp.float64 if x64 else jnp.float32
    for field in (routing.expert, routing.kept, routing.weight, routing.log_prob, routing.gate):
        assert field.shape == (N, M)
    assert routing.weight.dtype == routing.log_prob.dtype == routing.gate.dtype == width
    assert routing.expert.dtype == jnp.int32
    assert (routing.pair_weight is not None) == (name in WEIGHTED)
    if routing.pair_weight is not None:
        assert (routing.pair_weight.shape, routing.pair_weight.dtype) == ((N, M, M), width)
        assert ((routing.pair_weight[:, 0, 1] > 0) == routing.kept.all(axis=1)).all()
        np.testing.assert_array_equal(routing.pair_weight, np.swapaxes(routing.pair_weight, 1, 2))
        assert (np.diagonal(routing.pair_weight, axis1=1, axis2=2) == 0).all()
    assert (routing.expert[:, 0] < routing.expert[:, 1]).all()
    assert ((routing.weight > 0) == routing.kept).all()
    expected = np.log(routers.softmax(logits))
    tolerance = 1e-12 if x64 else 1e-5
    np.testing.assert_allclose(routing.log_probs, expected, rtol=tolerance)
    np.testing.assert_allclose(routing.log_prob, np.take_along_axis(expected, routing.expert, 1), rtol=tolerance)
    handled = np.bincount([j for _, _, j in several.pairs(routing)], minlength=K)
    assert load(routing).tolist() == handled.tolist()
    assert handled.max() <= getattr(router, "capacity", N)
    if name in WEIGHTED:
        assert (routing.gate == 1).all()


@some
def test_transformations(name):
    router = several.ALL[name]
    batch = jnp.stack([several.logits(seed=s) for s in range(2)])
    keys = jax.random.split(KEY, 2)
    single = [router(key, logits) for key, logits in zip(keys, batch, strict=True)]
    together = jax.jit(jax.vmap(router))(keys, batch)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *single)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, stacked)

    def total(a):
        # A gradient of the weights, were there any, would show in the sum.
        routing = router(keys[0], a)
        constant = routing.weight if routing.pair_weight is None else routing.weight + routing.pair_weight.sum(axis=1)
        return jnp.sum(routing.log_prob + 100 * constant)

    gradient = jax.jit(jax.grad(total))(batch[0])
    hit = (np.asarray(single[0].expert)[..., None] == np.arange(K)).sum(axis=1)
    np.testing.assert_allclose(gradient, hit - M * routers.softmax(batch[0]), atol=1e-5)


def top(scores, number):
    return np.sort(np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :number], axis=1)


BIAS = jnp.array([-0.3, 0.1, 0.2, 0.0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SwitchRouter, {}),
        (LossFreeRouter, {"score": "sigmoid"}),
        (LossFreeRouter, {"score": "softmax"}),
        (QuantileBalancingRouter, {"score": "log_softmax"}),
    ],
)
def test_choices_equal_a_loop(kind, options):
    places, logits = (2, 8, 1, 5), several.logits()
    p, sigmoid = routers.softmax(logits), 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    scores = {"sigmoid": sigmoid, "log_softmax": np.log(p)}.get(options.get("score"), p)
    state = () if kind is SwitchRouter else (BIAS,)
    routing = kind(places, experts_per_datapoint=M, **options)(KEY, logits, *state)
    experts = top(scores + (np.asarray(BIAS) if state else 0), M)
    np.testing.assert_array_equal(routing.expert, experts)
    np.testing.assert_array_equal(routing.kept, first_come(experts, places))
    np.testing.assert_array_equal(routing.weight, routing.kept)
    own = np.take_along_axis(sigmoid if options.get("score") == "sigmoid" else p, experts, 1)
    np.testing.assert_allclose(routing.gate, own / own.sum(axis=1, keepdims=True), rtol=1e-5)


def test_gates_have_the_gradient_of_a_softmax_over_those_chosen():
    logits = several.logits()
    routing = SwitchRouter(N, experts_per_datapoint=M)(KEY, logits)
    first = jax.jit(jax.grad(lambda a: SwitchRouter(N, experts_per_datapoint=M)(KEY, a).gate[:, 0].sum()))(logits)
    signs = np.zeros((N, K))
    np.put_along_axis(signs, np.asarray(routing.expert), np.array([[1.0, -1.0]]), 1)
    np.testing.assert_allclose(first, signs * np.prod(routing.gate, axis=1, keepdims=True), atol=1e-6)


def test_sigmoid_gates_that_underflow():
    routing = LossFreeRouter(N, experts_per_datapoint=M)(KEY, several.logits() - 200)
    np.testing.assert_allclose(routing.gate.sum(axis=1), 1, rtol=1e-5)


def test_base_is_the_best_assignment():
    """Against SciPy on the pairs: a datapoint twice, its copies kept apart by giving up what both would take."""
    logits = several.logits()
    routing = BaseRouter((8, 4, 2, 2), experts_per_datapoint=M)(KEY, logits)
    assert load(routing).tolist() == [8, 4, 2, 2]
    a = np.asarray(logits, np.float64)
    # Everybody has expert 0 then, and the rest is a matching of one expert each.
    from scipy.optimize import linear_sum_assignment

    columns = np.repeat(np.arange(1, 4), [4, 2, 2])
    _, chosen = linear_sum_assignment(a[:, columns], maximize=True)
    np.testing.assert_array_equal(routing.expert, np.stack([np.zeros(8, int), columns[chosen]], 1))
    np.testing.assert_allclose(routing.gate, 1 / (1 + np.exp(-np.take_along_axis(a, routing.expert, 1))), rtol=1e-5)


def test_skip_keeps_random_subsets_of_each_expert():
    routing = SkipRouter((1, 2, 3, 8), experts_per_datapoint=M)(KEY, several.logits())
    everyone = IndependentRouter(experts_per_datapoint=M)(jax.random.split(KEY)[0], several.logits())
    np.testing.assert_array_equal(routing.expert, everyone.expert)
    for j, places in enumerate((1, 2, 3, 8)):
        mine = np.asarray(routing.expert) == j
        assert (mine & np.asarray(routing.kept)).sum() == min(mine.sum(), places)
        ratio = np.asarray(routing.weight / everyone.weight)[mine & np.asarray(routing.kept)]
        np.testing.assert_allclose(ratio, mine.sum() / min(max(mine.sum(), 1), places), rtol=1e-5)
    # A pair that one of the two experts does not keep weighs nothing.
    factor = routing.weight / everyone.weight
    np.testing.assert_allclose(routing.pair_weight, everyone.pair_weight * of_two(factor), rtol=1e-5)
    assert not routing.kept.all(axis=1).all()


@some
def test_one_is_no_number_with_an_axis_more(name):
    router = make_router(name, 4)
    plain, one = router(KEY, several.logits()), make_router(name, 4, experts_per_datapoint=1)(KEY, several.logits())
    assert one.experts_per_datapoint == 1
    assert plain.experts_per_datapoint is None
    assert plain.pair_weight is one.pair_weight is None
    for one_leaf, leaf in zip(jax.tree.leaves(one), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one_leaf.reshape(leaf.shape), leaf)


@some
def test_forbidden_experts_leave_places_empty(name):
    logits, router = jnp.asarray(several.one_and_none_left()), several.ALL[name]
    if name in ("base", "gumbel_matching"):  # which give everybody as many as asked for
        with pytest.raises(ValueError, match="no feasible"):
            router(KEY, logits)
        logits = logits.at[0].set(logits[1])
    routing = router(KEY, logits)
    nobody = np.asarray(routing.expert) == K
    assert nobody.sum() == (name not in ("base", "gumbel_matching"))
    assert not np.asarray(routing.kept)[nobody].any()
    if routing.pair_weight is not None:
        assert (np.asarray(routing.pair_weight)[nobody] == 0).all()
        assert jnp.isfinite(routing.pair_weight).all()
    for field in (routing.weight, routing.log_prob, routing.gate):
        assert (np.asarray(field)[nobody] == 0).all()
        assert jnp.isfinite(field).all()
    there = ~nobody
    assert np.isfinite(np.take_along_axis(np.asarray(logits), np.clip(routing.expert, 0, K - 1), 1))[there].all()
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(router(KEY, a).gate ** 2 + router(KEY, a).log_prob)))(logits)
    assert jnp.isfinite(gradient).all()


MASK = np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)


@some
def test_mask(name):
    router, logits = several.ALL[name], several.logits()
    padded = np.full((len(MASK), K), np.nan)
    padded[MASK] = logits
    routing = router(KEY, jnp.asarray(padded, logits.dtype), mask=MASK)
    np.testing.assert_array_equal(routing.mask, MASK)
    expected = {"expert": K, "kept": False, "weight": 0, "log_prob": 0, "gate": 0, "log_probs": -np.inf}
    for field, value in expected.items():
        assert (np.asarray(getattr(routing, field))[~MASK] == value).all(), field
    assert routing.pair_weight is None or (np.asarray(routing.pair_weight)[~MASK] == 0).all()
    assert load(routing).sum() == routing.kept.sum()
    assert load(routing).max() <= getattr(router, "capacity", N)
    if name in CHOOSING:
        plain = router(KEY, logits)
        np.testing.assert_array_equal(routing.expert[MASK], plain.expert)
        np.testing.assert_array_equal(routing.kept[MASK], plain.kept)
        np.testing.assert_allclose(load_balancing_loss(routing), load_balancing_loss(plain), rtol=1e-5)
    if hasattr(router, "update"):
        bias = router.init(K)
        np.testing.assert_allclose(router.update(bias, routing), router.update(bias, router(KEY, logits)), atol=1e-6)


def test_balance_loss_counts_the_best_experts():
    logits = several.logits()
    p = routers.softmax(logits)
    fraction = np.bincount(top(p, M).ravel(), minlength=K) / (N * M)
    found = load_balancing_loss(SkipRouter(3, experts_per_datapoint=M)(KEY, logits))
    np.testing.assert_allclose(found, K * (fraction * p.mean(axis=0)).sum(), rtol=1e-5)
    balanced = jnp.array([3.0, 2.0, 0.0, 0.0])[(jnp.arange(K) - jnp.arange(N)[:, None]) % K]
    np.testing.assert_allclose(load_balancing_loss(several.ALL["switch"](KEY, balanced)), 1, rtol=1e-6)


@pytest.mark.slow
def test_biases_aim_at_as_many_pairs_as_there_are():
    logits = routers.logits(64, K)
    loss_free = LossFreeRouter((2, 1, 1, 4), rate=0.25, experts_per_datapoint=M)
    routing = loss_free(KEY, logits)
    loads = np.bincount(np.asarray(routing.expert).ravel(), minlength=K)
    expected = 0.25 * np.sign(np.array([32, 16, 16, 64]) - loads)
    np.testing.assert_allclose(loss_free.update(jnp.zeros(K), routing), expected)
    quantile = QuantileBalancingRouter(64, score="log_softmax", experts_per_datapoint=M)
    bias = quantile.init(K)
    step = jax.jit(lambda bias: quantile.update(bias, quantile(KEY, logits, bias)))
    for _ in range(12):
        bias = step(bias)
    balanced = np.bincount(np.asarray(quantile(KEY, logits, bias).expert).ravel(), minlength=K)
    assert np.abs(balanced - 32).max() <= 2 < np.abs(loads - 32).max()
    everybody = QuantileBalancingRouter(64, experts_per_datapoint=K)
    assert jnp.isfinite(everybody.update(bias, everybody(KEY, logits, bias))).all()
