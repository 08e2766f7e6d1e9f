"""Which problems the compiled solver gets, and that it agrees with the search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.matching import _compiled, _solve, solve_matching
from tests.matching import large_problems

needs_it = pytest.mark.skipif(not _compiled.AVAILABLE, reason="installed without the compiled solver")


@needs_it
@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [
        (0, 3, False),
        (1, 1, True),
        (5, 8, True),
        (65536, 64, True),
        (65537, 64, False),
        (2048, 2, True),
        (2049, 2, False),
        (2048, 2048, True),
        (2, 2049, False),
    ],
)
def test_what_it_suits(n, k, expected):
    assert _compiled.suits(n, k) == expected


def custom_calls(s):
    text = jax.jit(lambda s: solve_matching(s, s.shape[0])).lower(s).as_text()
    return text.count("gumbel_moe_successive_paths_f32"), text.count("while")


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@needs_it
def test_programs_hold_one_solver_only():
    calls, loops = custom_calls(shaped(64, 8))
    assert (calls, loops) == (1, 0)
    calls, loops = custom_calls(shaped(65537, 64))
    assert calls == 0
    assert loops > 0


# A batch on another device is solved by the search, too, all problems at once.
@needs_it
@pytest.mark.parametrize("shape", [(64, 8), (3, 64, 8)])
def test_every_device_gets_its_own_solver(shape):
    def lowered(*platforms):
        return jax.jit(lambda s: solve_matching(s, 8)).trace(shaped(*shape)).lower(lowering_platforms=platforms)

    assert "gumbel_moe_successive_paths" not in lowered("cuda").as_text()
    assert "gumbel_moe_successive_paths" in lowered("cuda", "cpu").as_text()


@needs_it
def test_export():
    def program(compiled):
        return jax.jit(lambda s: _solve._solve(s, jnp.full(3, 4), None, full=True, compiled=compiled).value)

    def exported(compiled, *allowed):
        checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in allowed]
        return jax.export.export(program(compiled), disabled_checks=checks)(shaped(12, 3))

    name = "gumbel_moe_successive_paths_f32"
    with pytest.raises(ValueError, match=name):
        exported(True)
    s = large_problems.scores("random", 12, 3, 0)
    for stored in (exported(False), exported(True, name)):
        np.testing.assert_allclose(stored.call(s), solve_matching(s, 4).value, rtol=1e-6)


@needs_it
@pytest.mark.parametrize("mask", [-1e9, -1e20, np.finfo(np.float32).min])
@pytest.mark.parametrize("prices", [None, 1e20 * np.arange(8.0)])
def test_huge_finite_scores_cost_no_precision(mask, prices):
    """As many mask with them; the prices to start from would be of the same size."""
    n, k = 512, 8
    s = large_problems.scores("skewed", n, k, 0)
    barred = large_problems.barred(s, 0)
    masked = jnp.where(barred == -jnp.inf, jnp.asarray(mask, s.dtype), s)
    start = None if prices is None else jnp.asarray(prices, s.dtype)
    match = solve_matching(masked, n // k, prices=start)
    large_problems.check(barred, np.full(k, n // k), match, 1e-6)


@needs_it
def test_a_datapoint_with_huge_finite_scores_alone_has_a_place():
    s = large_problems.scores("skewed", 60, 4, 0).at[7].set(np.finfo(np.float32).min)
    match = solve_matching(s, 15)
    np.testing.assert_array_equal(np.bincount(match.assignment, minlength=4), np.full(4, 15))


@needs_it
def test_scores_as_far_apart_as_float32_allows():
    s = np.random.default_rng(0).choice(np.float32([-3e38, 0, 1, 3e38]), size=(64, 4))
    capacity = np.full(4, 16)
    load = np.bincount(solve_matching(s, 16).assignment, minlength=4)
    np.testing.assert_array_equal(load, capacity)


@needs_it
@pytest.mark.parametrize("x64", [False, pytest.param(True, marks=pytest.mark.slow)], indirect=True)
def test_both_solvers_agree(x64):
    n, k = 300, 7
    capacity = {kind: jnp.asarray(large_problems.capacities(kind, n, k), jnp.int32) for kind in large_problems.KINDS}
    solvers = [
        jax.jit(lambda s, c, compiled=compiled: _solve._solve(s, c, None, full=False, compiled=compiled))
        for compiled in (True, False)
    ]
    for family, kind, seed in itertools.product(large_problems.FAMILIES, large_problems.KINDS, range(3)):
        s = large_problems.scores(family, n, k, seed)
        compiled, searched = (solve(s, capacity[kind]) for solve in solvers)
        np.testing.assert_allclose(compiled.value, searched.value, rtol=1e-12 if x64 else 1e-6)
        if family in ("random", "random3", "skewed"):  # without ties there is one optimum
            np.testing.assert_array_equal(compiled.assignment, searched.assignment)


@needs_it
def test_free_places_are_filled_together():
    """Steps do not grow with the number of places that nobody needs."""
    n, k = 200, 6
    s = large_problems.scores("skewed", n, k, 0)
    match = solve_matching(s, n)
    np.testing.assert_array_equal(match.assignment, np.argmax(s, axis=1))
    assert match.steps <= 2 * k


@needs_it
def test_prices_to_start_from_save_paths_or_are_not_used():
    n, k = 2048, 16
    for family in large_problems.FAMILIES[:3]:
        s, other = (large_problems.scores(family, n, k, seed) for seed in (0, 1))
        cold = solve_matching(s, n // k)
        assert 5 * int(solve_matching(s, n // k, prices=cold.prices).steps) <= int(cold.steps)
        assert int(solve_matching(other, n // k, prices=1e3 * jnp.arange(k, dtype=s.dtype)).steps) < n / 4


@pytest.mark.slow
@needs_it
def test_any_layout_of_the_scores():
    s = large_problems.scores("random", 60, 5, 0)
    turned = jax.jit(lambda t: solve_matching(t.T, 12).assignment)(s.T)
    np.testing.assert_array_equal(turned, solve_matching(s, 12).assignment)


@pytest.mark.slow
@needs_it
def test_draws_are_the_same_without_it(monkeypatch):
    d = GumbelMatching(large_problems.scores("random", 40, 4, 0), 10)
    value, log_q = d.sample_with_conditionals(jax.random.key(0), (5,))
    monkeypatch.setattr(_solve, "suits", lambda n, k, each: False)
    jax.clear_caches()
    other, other_log_q = d.sample_with_conditionals(jax.random.key(0), (5,))
    jax.clear_caches()
    np.testing.assert_array_equal(value, other)
    np.testing.assert_allclose(log_q, other_log_q, atol=1e-5)
