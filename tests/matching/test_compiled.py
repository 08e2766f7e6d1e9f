"""Which problems the compiled solver gets, and that the library is the same without it."""

import itertools
import shutil
from importlib.machinery import ModuleSpec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.matching import _compiled, _solve, solve_matching
from tests.matching import large_problems

needs_it = pytest.mark.skipif(not _compiled.AVAILABLE, reason="installed without the compiled solver")


def test_it_is_there_where_a_compiler_is():
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler here")
    assert _compiled.AVAILABLE


@needs_it
@pytest.mark.parametrize(
    ("n", "k", "expected"),
    [
        (0, 3, False),
        (1, 1, True),
        (5, 8, True),
        (2048, 64, True),
        (2049, 64, False),
        (2048, 2, True),
        (2049, 2, False),
        (362, 362, True),
        (2, 363, False),
    ],
)
def test_what_it_suits(n, k, expected):
    assert _compiled.suits(n, k) == expected


def custom_calls(s):
    text = jax.jit(lambda s: solve_matching(s, s.shape[0])).lower(s).as_text()
    return text.count("gumbel_moe_successive_paths_f32"), text.count("while")


@needs_it
def test_programs_hold_one_solver_only():
    calls, loops = custom_calls(jnp.zeros((64, 8)))
    assert (calls, loops) == (1, 0)
    calls, loops = custom_calls(jnp.zeros((2049, 64)))
    assert calls == 0
    assert loops > 0


# On other devices a batch is solved by the search, all problems at once.
@needs_it
def test_for_another_device_the_search_is_lowered():
    batch = jnp.zeros((3, 64, 8))
    lowered = jax.jit(lambda s: solve_matching(s, 8)).trace(batch).lower(lowering_platforms=("cuda",))
    assert "gumbel_moe_successive_paths" not in lowered.as_text()


@needs_it
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
def test_any_layout_of_the_scores():
    s = large_problems.scores("random", 60, 5, 0)
    turned = jax.jit(lambda t: solve_matching(t.T, 12).assignment)(s.T)
    np.testing.assert_array_equal(turned, solve_matching(s, 12).assignment)


@needs_it
def test_draws_are_the_same_without_it(monkeypatch):
    d = GumbelMatching(large_problems.scores("random", 40, 4, 0), 10)
    value, log_q = d.sample_with_conditionals(jax.random.key(0), (5,))
    monkeypatch.setattr(_solve, "suits", lambda n, k: False)
    jax.clear_caches()
    other, other_log_q = d.sample_with_conditionals(jax.random.key(0), (5,))
    jax.clear_caches()
    np.testing.assert_array_equal(value, other)
    np.testing.assert_allclose(log_q, other_log_q, atol=1e-5)


@pytest.mark.parametrize("origin", [None, "missing.so", __file__])
def test_without_a_usable_library_it_is_not_available(monkeypatch, origin):
    spec = None if origin is None else ModuleSpec("_native", None, origin=origin)
    monkeypatch.setattr(_compiled, "find_spec", lambda name: spec)
    assert not _compiled._register()


def test_an_older_jax_than_at_installation_does_without_it(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("API version mismatch")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    assert not _compiled._register()
