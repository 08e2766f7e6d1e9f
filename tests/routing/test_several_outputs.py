"""Several experts for every datapoint: buffers there and back, mixtures of outputs, what fails, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.routing import (
    BaseRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    SkipRouter,
    SwitchRouter,
    combine,
    dispatch,
    load,
    make_router,
    mixture_output,
)
from tests.routing import routers, several
from tests.routing.several import K, M, N, first_come

KEY = routers.KEY
some = several.SOME


@some
def test_buffers_and_back(name):
    routing = several.ALL[name](KEY, several.logits())
    tokens = jnp.asarray(np.random.default_rng(1).normal(size=(N, 3)), jnp.result_type(float))
    expected, used = np.zeros((K, N, 3), tokens.dtype), [0] * K
    for i, _, j in several.pairs(routing):
        expected[j, used[j]] = tokens[i]
        used[j] += 1
    buffers = dispatch(tokens, routing, N)
    np.testing.assert_array_equal(buffers, expected)
    rows = jnp.where(routing.kept[..., None], tokens[:, None], 0)
    np.testing.assert_array_equal(combine(buffers, routing, each=True), rows)
    np.testing.assert_allclose(combine(buffers, routing), rows.sum(axis=1), rtol=1e-6)
    for option, factor in (("gated", routing.gate), ("weighted", routing.weight)):
        found = combine(buffers, routing, **{option: True})
        np.testing.assert_allclose(found, (factor[..., None] * rows).sum(axis=1), rtol=1e-5, atol=1e-6)
        each = combine(buffers, routing, each=True, **{option: True})
        np.testing.assert_allclose(each, factor[..., None] * rows, rtol=1e-6)
    np.testing.assert_allclose(combine(buffers, routing, weighted=True), mixture_output(routing, rows), rtol=1e-6)


@pytest.mark.parametrize("name", ["base", "gumbel_matching"])
def test_no_feasible_matching_under_jit(name):
    logits = jnp.asarray(several.one_and_none_left())
    routing = jax.jit(several.ALL[name])(KEY, logits)
    assert (routing.expert == -1).all()
    for field in (routing.weight, routing.log_prob, routing.gate):
        assert jnp.isnan(field).all()
    assert load(routing).tolist() == [0] * K
    back = jax.jit(lambda r: combine(dispatch(jnp.ones(N), r, N), r))(routing)
    assert jnp.isnan(back).all()


@some
def test_nan_under_jit(name):
    routing = jax.jit(several.ALL[name])(KEY, several.logits().at[2, 1].set(jnp.nan))
    spoilt = np.ones(N, bool) if name in routers.COUPLED else np.arange(N) == 2
    for field in (routing.weight, routing.log_prob, routing.gate):
        np.testing.assert_array_equal(np.isnan(field).all(axis=1), spoilt)


def test_too_few_rows_never_pass_silently():
    routing = SwitchRouter(N, experts_per_datapoint=M)(KEY, several.logits())
    tokens = jnp.arange(1.0, N + 1)
    rows = jax.jit(lambda x, r: combine(dispatch(x, r, 2), r, each=True))(tokens, routing)
    experts = np.asarray(routing.expert)
    fits = first_come(experts, 2)
    np.testing.assert_array_equal(rows, np.where(fits, np.asarray(tokens)[:, None], np.nan))
    with pytest.raises(ValueError, match="capacity must hold the kept datapoints of every expert"):
        dispatch(tokens, routing, 2)


def test_mixture_output_carries_the_gradient_of_p():
    logits = several.logits()
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(N, K, 3)), logits.dtype)
    everybody = IndependentRouter(experts_per_datapoint=K)

    def mixed(a):
        return mixture_output(everybody(KEY, a), outputs)

    def dense(a):
        return jnp.einsum("nk,nko->no", jax.nn.softmax(a), outputs)

    found, exact = (jax.jit(jax.value_and_grad(lambda a, f=f: jnp.sum(f(a) ** 2)))(logits) for f in (mixed, dense))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, exact)


def test_mixture_output_ignores_who_is_skipped():
    logits = several.logits()

    def total(a, fill):
        routing = several.ALL["skip"](KEY, a)
        return mixture_output(routing, jnp.where(routing.kept, 1.0, fill)).sum()

    results = [jax.jit(jax.value_and_grad(total))(logits, fill) for fill in (0.0, jnp.nan)]
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert jnp.isfinite(results[0][0])
    single = SkipRouter(2)(KEY, logits)
    np.testing.assert_array_equal(mixture_output(single, jnp.ones(N)), single.weight)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SwitchRouter(2, experts_per_datapoint=0), ValueError, "experts_per_datapoint must be a positive int"),
        (lambda: SkipRouter(2, experts_per_datapoint=1.5), ValueError, "experts_per_datapoint must be a positive int"),
        (lambda: SwitchRouter(2, 2), TypeError, "positional"),
        (
            lambda: make_router("expert_choice", 2, experts_per_datapoint=2),
            ValueError,
            "is not for the router",
        ),
        *(
            (
                lambda name=name: make_router(name, N, experts_per_datapoint=5)(KEY, several.logits()),
                ValueError,
                "experts_per_datapoint must be at most the number of experts, 4, got 5",
            )
            for name in several.ALL
        ),
        (lambda: BaseRouter(3, experts_per_datapoint=2)(KEY, several.logits()), ValueError, "capacity has room for 12"),
        (
            lambda: GumbelMatchingRouter((1, 1, 4, 90), experts_per_datapoint=2)(KEY, several.logits()),
            ValueError,
            "capacity has room for 14",
        ),
        (
            lambda: combine(jnp.zeros((4, 8)), several.ALL["skip"](KEY, several.logits()), gated=True, weighted=True),
            ValueError,
            "gated or weighted, got both",
        ),
        (
            lambda: combine(jnp.zeros((4, 2)), make_router("expert_choice", 2)(KEY, several.logits()), weighted=True),
            ValueError,
            "an ExpertChoiceRouting has no weights",
        ),
        (
            lambda: mixture_output(several.ALL["skip"](KEY, several.logits()), jnp.zeros((8, 3))),
            ValueError,
            r"outputs must have shape \(8, 2, Ellipsis\)",
        ),
        (
            lambda: mixture_output(several.ALL["skip"](KEY, several.logits()), jnp.zeros((8, 2), int)),
            TypeError,
            "outputs must be floating point",
        ),
        (
            lambda: mixture_output(make_router("expert_choice", 2)(KEY, several.logits()), jnp.zeros((4, 2))),
            TypeError,
            "routing must be a Routing, got ExpertChoiceRouting",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_routers_show_what_they_were_asked_for():
    assert str(SwitchRouter(2)) == "SwitchRouter(capacity=2)"
    assert str(SwitchRouter(2, experts_per_datapoint=2)) == "SwitchRouter(capacity=2, experts_per_datapoint=2)"
    assert SwitchRouter(2, experts_per_datapoint=2) != SwitchRouter(2)
