"""Several experts for a datapoint: the optimum against HiGHS, its shapes, and what is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import Matching, _compiled, exchange_distances, solve_matching
from gumbel_moe.matching._exchange import match_and_distances
from gumbel_moe.matching._solve import _solve
from tests.matching import problems, several_problems

N, K = 9, 4
WIDTHS = {"float32": (False, 1e-5), "float64": (True, 1e-10)}
SOLVERS = [
    pytest.param("compiled", marks=pytest.mark.skipif(not _compiled.AVAILABLE, reason="installed without it")),
    "search",
]


@cache
def solver_of(name, each):
    """A function of scores and capacities with a leading axis, by one of the solvers whatever the size."""

    def solve(s, c):
        return _solve(s, c, None, full=False, compiled=name == "compiled", each=each)

    return jax.jit(lambda s, c: jax.lax.map(lambda problem: solve(*problem), (s, c)))


def check_grid(name, each, width, n, k, seeds):
    x64, tolerance = WIDTHS[width]
    scores, capacity = several_problems.grid(n, k, each, seeds)
    with jax.enable_x64(x64):
        scores = jnp.asarray(scores, float)
        matches = solver_of(name, each)(scores, jnp.asarray(capacity, jnp.int32))
        assert matches.value.dtype == scores.dtype
        fields = [np.asarray(field) for field in matches]
        for s, c, *match in zip(np.asarray(scores, np.float64), capacity, *fields, strict=True):
            several_problems.check(s, c, each, Matching(*match), tolerance)


@pytest.mark.each_choice
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("each", "width"), [(2, "float32"), (3, "float64"), (4, "float32")])
def test_equals_highs(solver, each, width):
    check_grid(solver, each, width, N, K, range(2))


# 40 families and capacities x 2 widths x (7 x 5 + 3 x 2 + 2) seeds = 3,440 problems for each solver
@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("shape", "seeds"), [((9, 7), 5), ((1, 3), 2), ((40, 6), 1)], ids=lambda value: str(value).replace(" ", "")
)
def test_equals_highs_for_every_number(solver, width, shape, seeds):
    for each in range(1, shape[1] + 1):
        check_grid(solver, each, width, *shape, range(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("each", [2, 5])
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_highs_with_a_core(solver, each, width):
    """More datapoints than the search puts into its core, and new orders of the members in the compiled solver."""
    check_grid(solver, each, width, 400, 8, range(1))


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_of_several_equals_one(solver):
    s = jnp.asarray(np.stack([problems.scores(f, N, 2, 0) for f in ["normal", "ties", "skewed"]]), jnp.float32)
    capacity = jnp.tile(jnp.array([[5, 6]], jnp.int32), (3, 1))
    plain, several = (solver_of(solver, each)(s, capacity) for each in (None, 1))
    assert several.assignment.shape == (3, N, 1)
    np.testing.assert_array_equal(several.assignment[..., 0], plain.assignment)
    jax.tree.map(np.testing.assert_array_equal, several[1:], plain[1:])


def test_batches():
    """Leading axes, and `vmap` under `jit`, give what single problems do."""
    s = jnp.asarray(np.stack([problems.scores(f, N, K, 0) for f in ["normal", "heavy"]])[None], jnp.float32)
    match = solve_matching(s, 5, experts_per_datapoint=2)
    assert match.assignment.shape == (1, 2, N, 2)
    assert match.prices.shape == (1, 2, K)
    assert match.value.shape == match.gap.shape == match.steps.shape == (1, 2)
    mapped = jax.jit(jax.vmap(lambda s: solve_matching(s, 5, experts_per_datapoint=2)))(s[0])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[0]), mapped, match)
    single = solve_matching(s[0, 1], 5, experts_per_datapoint=2)
    np.testing.assert_array_equal(single.assignment, match.assignment[0, 1])
    both, distances = match_and_distances(s, 5, experts_per_datapoint=2)
    np.testing.assert_array_equal(both.assignment, match.assignment)
    np.testing.assert_allclose(distances, exchange_distances(s, match.assignment, 5), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("each", [2, 3])
def test_at_once(each):
    """All problems of a batch at once, as an accelerator runs them."""
    scores, capacity = several_problems.grid(N, K, each, range(2))
    scores, capacity = jnp.asarray(scores, jnp.float32), jnp.asarray(capacity, jnp.int32)
    matches = jax.jit(jax.vmap(lambda s, c: _solve.__wrapped__(s, c, None, full=False, compiled=False, each=each)))
    looped = solver_of("search", each)(scores, capacity)
    np.testing.assert_allclose(matches(scores, capacity).value, looped.value, rtol=1e-5)


@pytest.mark.parametrize("solver", [SOLVERS[0], pytest.param("search", marks=pytest.mark.slow)])
def test_prices_to_start_from(solver):
    """They change the time, never the optimum, however wild."""
    s = jnp.asarray(problems.scores("normal", N, K, 0), jnp.float32)
    solve = jax.jit(
        lambda u: _solve(s, jnp.full(K, 5, jnp.int32), u, full=False, compiled=solver == "compiled", each=2)
    )
    best = solve(jnp.zeros(K))
    for wild in ([0, 1, 2, 3], [1e20, 0, 0, -1e20], [np.nan, 0, 0, 0], best.prices):
        np.testing.assert_array_equal(solve(jnp.asarray(wild, jnp.float32)).assignment, best.assignment)


def test_a_huge_finite_score_is_used_only_where_it_has_to_be():
    s = problems.scores("normal", N, K, 0)
    mask = np.random.default_rng(0).uniform(size=s.shape) < 0.2
    s[mask] = -np.inf
    masked = np.where(mask, -1e30, s)
    capacity = np.full(K, 7)
    several_problems.check(
        s, capacity, 2, solve_matching(jnp.asarray(masked, jnp.float32), 7, experts_per_datapoint=2), 1e-5
    )


@pytest.mark.parametrize(
    ("each", "capacity", "message"),
    [
        (0, 9, "experts_per_datapoint must be a positive int"),
        (-1, 9, "experts_per_datapoint must be a positive int"),
        (1.5, 9, "experts_per_datapoint must be a positive int"),
        (5, 9, "experts_per_datapoint must be at most 4"),
        (2, 4, "capacity has room for 16 pairs .* 9 datapoints of 2 experts each are 18"),
        (2, (100, 2, 2, 2), "capacity has room for 15 pairs"),  # nobody is twice at the first one
        (1, 2, "capacity has room for 8 datapoints"),
    ],
)
def test_bad_arguments(each, capacity, message):
    with pytest.raises(ValueError, match=message):
        solve_matching(jnp.zeros((N, K)), capacity, experts_per_datapoint=each)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_has_no_solution(solver):
    """Under `jit` the documented marks, for the problem alone, and outside an error."""
    s = jnp.asarray(problems.scores("normal", N, K, 0), jnp.float32)
    one_left = s.at[3, 1:].set(-jnp.inf)
    crowded = s.at[:7, 2:].set(-jnp.inf)
    capacity = jnp.full((5, K), 5, jnp.int32).at[4].set(jnp.array([20, 2, 2, 2]))
    batch = jnp.stack([s, one_left, crowded, s.at[0, 0].set(jnp.nan), s])
    often = len(several_problems.grid(N, K, 2, range(2))[0]) // 5  # the program of another test
    match = solver_of(solver, 2)(jnp.tile(batch, (often, 1, 1)), jnp.tile(capacity, (often, 1)))
    match = jax.tree.map(lambda x: x[:5], match)
    assert (match.assignment[1:] == -1).all()
    assert jnp.isnan(match.prices[1:]).all()
    assert jnp.isnan(match.gap[1:]).all()
    np.testing.assert_array_equal(match.value[1:], [-np.inf, -np.inf, np.nan, -np.inf])
    several_problems.check(np.asarray(s, np.float64), np.full(K, 5), 2, jax.tree.map(lambda x: x[0], match), 1e-5)
    if solver == "compiled":
        for bad in (one_left, crowded):
            with pytest.raises(ValueError, match="no feasible matching"):
                solve_matching(bad, 5, experts_per_datapoint=2)


def test_no_datapoints():
    match = solve_matching(jnp.zeros((0, 3)), 1, experts_per_datapoint=2)
    assert match.assignment.shape == (0, 2)
    assert match.value == match.gap == 0
    assert solve_matching(jnp.zeros((2, 0, 3)), 1, experts_per_datapoint=2).assignment.shape == (2, 0, 2)


@pytest.mark.skipif(not _compiled.AVAILABLE, reason="installed without the compiled solver")
@pytest.mark.parametrize(("each", "expected"), [(1, 0), (2, 1), (64, 1)])
def test_the_compiled_solver_of_several(each, expected):
    """It takes many datapoints per expert, too, as it keeps them in order."""
    program = jax.jit(lambda s: solve_matching(s, 65536, experts_per_datapoint=each))
    text = program.lower(jax.ShapeDtypeStruct((65536, 64), jnp.float32)).as_text()
    assert text.count("gumbel_moe_successive_paths_several_f32") == expected
    assert _compiled.suits(20_000, 4, 2)
    assert not _compiled.suits(20_000, 4, 1)
