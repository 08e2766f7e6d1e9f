"""Shortest paths on small graphs against Floyd and Warshall's algorithm in plain NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import _paths

all_pairs, by_intermediates, by_squaring, from_sources, lowered, ancestors, successors = (
    jax.jit(f)
    for f in (
        _paths.all_pairs,
        _paths.by_intermediates,
        _paths.by_squaring,
        _paths.from_sources,
        _paths.lowered,
        _paths.ancestors,
        _paths.successors,
    )
)

SIZES = [1, 2, 3, 5, 8, 33]
SEEDS = range(6)
KINDS = ["positive", "signed", "sparse", "ties"]


def floyd_warshall(costs):
    best = np.array(costs, np.float64)
    for via in range(len(best)):
        best = np.minimum(best, best[:, via, None] + best[via])
    return best


def graph(kind, k, seed):
    """Costs without a negative cycle, 0 on the diagonal, in the float width that is in force."""
    rng = np.random.default_rng([seed, k])
    costs = rng.integers(0, 3, size=(k, k)).astype(float) if kind == "ties" else rng.uniform(size=(k, k))
    if kind == "signed":
        height = 5 * rng.normal(size=k)
        costs = costs + height[:, None] - height
    if kind == "sparse":
        costs[rng.uniform(size=(k, k)) < 1 - 2 / k] = np.inf
    np.fill_diagonal(costs, 0)
    return jnp.asarray(costs, float)


def chain(k, seed):
    """One way through all the nodes, in random order, and no other edges."""
    order = np.random.default_rng(seed).permutation(k)
    costs = np.full((k, k), np.inf)
    np.fill_diagonal(costs, 0)
    costs[order[:-1], order[1:]] = np.arange(1, k)
    return jnp.asarray(costs, float), order


ALGORITHMS = pytest.mark.parametrize("shortest", [by_intermediates, by_squaring], ids=["intermediates", "squaring"])


@pytest.mark.each_choice
@ALGORITHMS
@pytest.mark.parametrize("k", SIZES)
def test_all_pairs(shortest, k, x64):
    for kind, seed in itertools.product(KINDS, SEEDS):
        costs = graph(kind, k, seed)
        distances = shortest(costs)
        assert distances.dtype == costs.dtype
        assert (jnp.diagonal(distances) == 0).all()
        np.testing.assert_allclose(distances, floyd_warshall(costs), rtol=0, atol=1e-13 if x64 else 1e-5)


@ALGORITHMS
@pytest.mark.parametrize("k", SIZES)
def test_all_pairs_of_a_chain(shortest, k):
    for seed in SEEDS:
        costs, _ = chain(k, seed)
        np.testing.assert_array_equal(shortest(costs), floyd_warshall(costs))


def test_all_pairs_takes_what_suits_the_device():
    costs = graph(KINDS[0], SIZES[-1], SEEDS[0])
    suited = by_intermediates if jax.default_backend() == "cpu" else by_squaring
    np.testing.assert_array_equal(all_pairs(costs), suited(costs))


def test_a_cycle_below_zero_by_rounding_is_not_gone_round():
    """Edges of `-1e-7` each way: without reduced costs it comes out at -1e5."""
    costs = jnp.full((40, 40), -1e-7, jnp.float32)
    assert jnp.min(by_intermediates(costs)) >= -1e-5
    assert (jnp.diagonal(by_intermediates(costs)) == 0).all()


def test_oracle_on_a_graph_solved_by_hand():
    inf = np.inf
    costs = np.array([[0, 4, 1], [inf, 0, inf], [inf, 2, 0]])
    np.testing.assert_array_equal(floyd_warshall(costs), [[0, 3, 1], [inf, 0, inf], [inf, 2, 0]])


def walk(costs, source, successor, target):
    """The length of the path, by its edges; fails where it does not lead to the target."""
    length, here, visited = 0.0, source, set()
    while here != target:
        assert here not in visited
        visited.add(here)
        onward = int(successor[here])
        length, here = length + float(costs[here, onward]), onward
    assert int(successor[target]) == len(costs)
    return length, visited


@pytest.mark.each_choice
@pytest.mark.parametrize("k", SIZES)
def test_from_sources_and_trace(k, x64):
    rng = np.random.default_rng(k)
    for kind, seed in itertools.product(["positive", "sparse", "ties"], SEEDS):
        costs = graph(kind, k, seed)
        is_source = rng.uniform(size=k) < 0.3
        is_source[rng.integers(k)] = True
        distance, parent = from_sources(costs, jnp.asarray(is_source))
        expected = floyd_warshall(costs)[is_source].min(axis=0)
        tolerance = 1e-13 if x64 else 1e-5
        np.testing.assert_allclose(distance, expected, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(parent < 0, is_source | np.isinf(expected))
        jumps = ancestors(parent)
        first = np.asarray(jumps[-1])
        assert is_source[first[np.isfinite(expected)]].all()
        assert (first[np.isinf(expected)] == np.flatnonzero(np.isinf(expected))).all()
        for target in np.flatnonzero(np.isfinite(expected)):
            successor = np.asarray(successors(parent, jumps, jnp.full(k, target, jnp.int32)))
            length, visited = walk(costs, first[target], successor, target)
            assert length == pytest.approx(expected[target], abs=tolerance)
            assert set(np.flatnonzero(successor < k)) == visited
        # One path from every source at once, to any expert that is nearer to no other source.
        targets = np.array([rng.choice(np.flatnonzero(first == source)) for source in first], np.int32)
        targets = targets[first]  # the same for all that have the same source
        successor = np.asarray(successors(parent, jumps, jnp.asarray(targets)))
        on_paths = set()
        for source in np.flatnonzero(is_source):
            length, visited = walk(costs, source, successor, targets[source])
            assert length == pytest.approx(expected[targets[source]], abs=tolerance)
            on_paths |= visited
        assert set(np.flatnonzero(successor < k)) == on_paths


@pytest.mark.parametrize("k", SIZES)
def test_from_sources_along_a_chain(k):
    for seed in SEEDS:
        costs, order = chain(k, seed)
        distance, parent = from_sources(costs, jnp.arange(k) == order[0])
        assert distance[order[-1]] == k * (k - 1) / 2
        jumps = ancestors(parent)
        assert jumps[-1][order[-1]] == order[0]
        successor = successors(parent, jumps, jnp.full(k, order[-1], jnp.int32))
        np.testing.assert_array_equal(successor[order[:-1]], order[1:])


def test_no_sources_reach_nothing():
    distance, parent = from_sources(jnp.zeros((4, 4)), jnp.zeros(4, bool))
    assert jnp.isposinf(distance).all()
    assert (parent == -1).all()


@pytest.mark.each_choice
@pytest.mark.parametrize("k", SIZES)
def test_lowered_prices_are_feasible(k, x64):
    for kind, seed in itertools.product(KINDS, SEEDS):
        costs = graph(kind, k, seed)
        start = jnp.asarray(10 * np.random.default_rng(seed).normal(size=k), float)
        prices, exist = lowered(costs, start)
        assert exist
        assert (prices <= start).all()
        assert (prices <= jnp.min(costs + prices, axis=1)).all()
        # The highest such prices below the start: they cannot come from anywhere but a shortest path.
        highest = (floyd_warshall(costs) + np.asarray(start)).min(axis=1)
        np.testing.assert_allclose(prices, highest, rtol=0, atol=1e-12 if x64 else 1e-4)


@pytest.mark.parametrize("k", SIZES)
def test_lowered_along_a_chain(k):
    costs, order = chain(k, 0)
    start = jnp.zeros(k).at[order[-1]].set(-1e4)
    prices, exist = lowered(costs, start)
    assert exist
    np.testing.assert_array_equal(prices, (floyd_warshall(costs) + np.asarray(start)).min(axis=1))


@pytest.mark.parametrize("k", SIZES[1:])
def test_a_negative_cycle_has_no_prices(k):
    for seed in SEEDS:
        costs, order = chain(k, seed)
        assert lowered(costs, jnp.zeros(k))[1]
        for closing, exist in [(-k * (k - 1) / 2, True), (-k * (k - 1) / 2 - 1, False)]:
            _, found = lowered(costs.at[order[-1], order[0]].set(closing), jnp.zeros(k))
            assert found == exist
