"""Draws that cannot be averaged, draws that are not independent, and estimators without spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.diagnostics._independence import look

KEY = jax.random.key(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_draws_that_are_not_finite(value):
    @jax.jit
    def estimate(key):
        good = jax.random.normal(key, (3,))
        bad = jnp.where(jax.random.uniform(key) < 0.01, value, good[0])
        return {"good": good, "bad": jnp.array([0.0, 1.0]) * bad + jnp.array([1.0, 0.0])}

    report = check_unbiased(estimate, {"good": jnp.zeros(3), "bad": jnp.array([1.0, 0.0])}, KEY)
    assert not report.passed
    assert np.isnan(report.max_z)
    count = int(np.isnan(report.data["posterior"]["gradient"].to_numpy()).any(axis=-1).sum())
    if np.isnan(value):
        assert 40 < count < 140
        assert f"{count} of 8,000 draws are NaN or infinite, in bad" in report.reasons[0]
    assert "draws are NaN or infinite, in bad" in report.reasons[0]
    assert "good" not in report.reasons[0]
    assert not np.isfinite(report.summary["mean"]["bad[1]"])
    assert report.summary["z"].filter(like="good").abs().max() < 6
    assert "FAILED" in str(report)


def test_one_bad_draw_is_enough():
    report = check_unbiased(
        lambda key: jnp.where(jax.random.uniform(key) < 1e-3, jnp.nan, jax.random.normal(key, (2,))), jnp.zeros(2), KEY
    )
    assert not report.passed
    assert "draws are NaN or infinite, in gradient" in report.reasons[0]


def test_sizes_that_would_overflow_or_vanish_in_float32():
    """Squares of these are not float32 numbers; the false-fail rate is 1e-6 each."""
    for size in (1e25, 1e-25):
        estimate = jax.jit(lambda key, size=size: size * jax.random.normal(key, (20,)))
        report = check_unbiased(estimate, jnp.zeros(20), KEY)
        assert report.passed, str(report)
        assert report.summary["sd"].to_numpy() == pytest.approx(size, rel=0.05)
        shifted = jnp.zeros(20).at[3].set(-1.01 * report.detectable_bias)
        assert not check_unbiased(estimate, shifted, KEY).passed


def test_a_large_mean_does_not_drown_the_variance():
    estimate = jax.jit(lambda key: 1e4 + jax.random.normal(key, (5,)))
    report = check_unbiased(estimate, jnp.full(5, 1e4), KEY)
    assert report.passed
    assert report.summary["sd"].to_numpy() == pytest.approx(1, rel=0.05)


def gradient(x):
    return jnp.array([1.0, -1.0]) @ jnp.tanh(x) * jnp.linspace(0.1, 1, 200)


def test_an_exact_gradient_passes_whatever_its_rounding():
    x = jax.random.normal(KEY, (2, 200))
    exact = jax.jit(jax.grad(lambda x: gradient(x).sum()))(x)

    def blocks(key):  # the same in another order
        return jax.jit(jax.grad(lambda x: sum(gradient(x)[i::7].sum() for i in range(7))))(x)

    report = check_unbiased(blocks, exact, KEY, draws=100)
    assert np.abs(report.summary["bias"]).max() > 0
    assert report.passed, str(report)
    assert np.isnan(report.detectable_spread)
    assert report.detectable_bias < 1e-4

    off = check_unbiased(blocks, exact.at[0, 3].add(1e-3), KEY, draws=100)
    assert not off.passed
    assert np.isinf(off.max_z)
    assert "[0,3]" in off.reasons[0]
    assert "does the estimator use its key?" in off.reasons[1]


def test_events_too_rare_to_be_seen_are_no_bias():
    """Gradients that are 0 but for one draw in 100,000: 8,000 draws cannot tell, and must say what they could."""
    rare = jax.jit(lambda key: jnp.where(jax.random.uniform(key, (4,)) < jnp.array([1e-5, 1e-3, 0.5, 1.0]), 1.0, 0.0))
    exact = jnp.array([1e-5, 1e-3, 0.5, 1.0])
    report = check_unbiased(rare, exact, KEY)
    assert report.passed, str(report)
    assert 1e-3 < report.summary["detectable"]["gradient[0]"] < 4e-3
    # A coordinate that is always 0 where it should be more than that is biased.
    assert not check_unbiased(rare, exact.at[0].set(5e-3), KEY).passed


def test_a_gradient_that_is_cut_off_is_found():
    estimate = jax.jit(lambda key: {"a": jax.random.normal(key, (5,)), "b": jnp.zeros(5)})
    report = check_unbiased(estimate, {"a": jnp.zeros(5), "b": jnp.full(5, 0.1)}, KEY)
    assert not report.passed
    assert "b[0]" in report.reasons[0]


def test_few_keys():
    """Sixteen keys for all draws: their mean is not the expectation, and only sixteen draws differ."""

    def estimate(key):
        return jax.random.normal(jax.random.key(jax.random.randint(key, (), 0, 16)), (3,))

    report = check_unbiased(estimate, jnp.zeros(3), KEY)
    assert not report.passed
    assert "only 16 of the draws differ" in str(report)


def state_that_repeats(period):
    """An estimator with a state behind JAX's back, which makes every draw `period` times."""
    calls = {"made": 0}

    def draw(_):
        calls["made"] += 1
        return np.random.default_rng(calls["made"] // period).normal(size=3).astype(np.float32)

    return lambda key: jax.pure_callback(
        draw, jax.ShapeDtypeStruct((3,), jnp.float32), jax.random.key_data(key), vmap_method="sequential"
    )


@pytest.mark.slow
def test_a_state_that_repeats_draws():
    """Twice each: independent draws would pass this with a chance of less than 1e-6."""
    report = check_unbiased(state_that_repeats(2), jnp.zeros(3), KEY, draws=500)
    assert not report.passed
    assert any("draws repeat those 1 before them" in reason for reason in report.reasons)
    assert any(
        "effective sample size" in reason
        for reason in check_unbiased(state_that_repeats(8), jnp.zeros(3), KEY, draws=500).reasons
    )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 25), (4, 100), (4, 500), (1, 100), (2, 1000)], ids=str)
@pytest.mark.parametrize("kind", ["normal", "coin", "heavy"])
def test_independent_draws_look_independent(shape, kind):
    """Of 300 series of every shape and kind none may look dependent: false-fail rate below 1e-6 by design."""
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda size: rng.normal(size=size),
        "coin": lambda size: rng.integers(0, 2, size),
        "heavy": lambda size: rng.standard_cauchy(size),
    }[kind]
    for _ in range(10):
        series = draw((*shape, 30)).astype(np.float32)
        assert look([series], np.ones(30, bool)).reasons == ()
    # A single coin has two outcomes, most draws repeat others, and that is fine too.
    assert look([draw((*shape, 1)).astype(np.float32)], np.ones(1, bool)).reasons == ()


def test_dependent_draws_do_not():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(4, 500, 3)).astype(np.float32)
    good = np.ones(3, bool)
    assert look([drawn], good).reasons == ()
    repeated = drawn.copy()
    repeated[2] = repeated[0]
    assert "chain 2 repeats the draws of chain 0" in look([repeated], good).reasons[0]
    walk = np.zeros_like(drawn)
    for t in range(1, 500):
        walk[:, t] = 0.9 * walk[:, t - 1] + drawn[:, t]
    assert "effective sample size" in look([walk], good).reasons[0]
    shifted = drawn + np.arange(4, dtype=np.float32)[:, None, None] / 2
    assert any("chains disagree" in reason for reason in look([shifted], good).reasons)
