"""UniformAssignment: probabilities by counting maps into places, draws, entropy, large numbers, masks, errors."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, UniformAssignment, enumerate_assignments, outcome_probabilities
from tests.randomness import FALSE_FAIL_RATE, chisquare_p_value, z_limit

CASES = [(1, (1,)), (3, (5,)), (4, (2, 2)), (4, (3, 1)), (3, (3, 2)), (2, (1, 3, 1)), (4, (2, 1, 3)), (5, (2, 2, 2))]
SLOWLY = partial(pytest.param, marks=pytest.mark.slow)  # every shape is a program for every method
ROOMY = [(n, capacity) for n, capacity in CASES if sum(capacity) > n]


def counted(n, capacity):
    """Assignments, and the share of all injective maps to places that gives each: by listing the maps."""
    expert_of = np.repeat(np.arange(len(capacity)), capacity)
    maps = expert_of[list(itertools.permutations(range(sum(capacity)), n))]
    values, times = np.unique(maps, axis=0, return_counts=True)
    return values.astype(np.int32), times / len(maps)


def one_by_one(capacity, loads):
    """The log-probability in float64, rounded once: exact fractions of the places that are left, one by one."""
    terms, free, places = [], list(capacity), sum(capacity)
    for j, load in enumerate(loads):
        for _ in range(load):
            terms.append(
                math.log1p(-(places - free[j]) / places) if free[j] * 2 > places else math.log(free[j] / places)
            )
            free[j] -= 1
            places -= 1
    return math.fsum(terms)


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-6), (True, 1e-14)], ids=["float32", "float64"])
@pytest.mark.each_choice
@pytest.mark.parametrize(("n", "capacity"), [SLOWLY(*case) if case in CASES[::2] else case for case in CASES])
def test_probabilities_count_the_maps(n, capacity, x64, tolerance):
    with jax.enable_x64(x64):
        d = UniformAssignment(n, capacity, validate_args=False)
        values, shares = counted(n, capacity)
        np.testing.assert_array_equal(enumerate_assignments(n, capacity), values)
        log_prob = d.log_prob(values)
        assert log_prob.dtype == (jnp.float64 if x64 else jnp.float32)
        np.testing.assert_allclose(np.exp(log_prob), shares, rtol=tolerance)
        assert np.exp(log_prob).sum() == pytest.approx(1, abs=tolerance)
        everything = np.array(list(itertools.product(range(-1, len(capacity) + 1), repeat=n)))
        np.testing.assert_array_equal(np.isfinite(d.log_prob(everything)), d.support(everything))
        assert np.isfinite(d.log_prob(everything)).sum() == len(values)
        probs = np.exp(np.asarray(log_prob, np.float64))
        assert float(d.entropy()) == pytest.approx(-np.sum(probs * np.log(probs)), abs=10 * tolerance)
        one_hot = values[..., None] == np.arange(len(capacity))
        np.testing.assert_allclose(d.marginal_probs(), np.einsum("v,vij->ij", shares, one_hot), rtol=tolerance)


@pytest.mark.parametrize(("n", "capacity"), [(4, (2, 2)), (4, (3, 1)), (5, (2, 2, 1)), (3, (1, 1, 1))])
def test_gumbel_matching_of_equal_logits_where_the_places_just_suffice(n, capacity):
    """Also of logits that are a term of the row and one of the column."""
    row, column = np.random.default_rng(n).normal(size=(n, 1)), np.random.default_rng(0).normal(size=len(capacity))
    values = enumerate_assignments(n, capacity)
    log_prob = UniformAssignment(n, capacity).log_prob(values)
    assert jnp.ptp(log_prob) < 1e-6
    for logits in (np.zeros((n, len(capacity))), row + column):
        expected = GumbelMatching(jnp.asarray(logits, jnp.float32), capacity).log_prob(values)
        np.testing.assert_allclose(log_prob, expected, atol=1e-5)


def test_gumbel_matching_of_equal_logits_is_another_where_there_is_room():
    """The figures of the documentation; and independent draws where every expert has room for all."""

    def chances(n, capacity):
        values = np.asarray(enumerate_assignments(n, capacity))
        both = (
            jnp.exp(UniformAssignment(n, capacity).log_prob(values)),
            outcome_probabilities(jnp.zeros((n, len(capacity))), capacity),
        )
        same, first = values[:, 0] == values[:, 1], values[:, 0] == 0
        return [(float(p @ same), float(p @ first)) for p in both]

    for (n, capacity), same, first in (
        ((4, (3, 3)), (2 / 5, 7 / 16), (1 / 2, 1 / 2)),
        ((4, (3, 2)), (2 / 5, 37 / 96), (3 / 5, 37 / 64)),
        ((2, (3, 2)), (2 / 5, 1 / 2), (3 / 5, 1 / 2)),
    ):
        np.testing.assert_allclose(chances(n, capacity), np.column_stack([same, first]), atol=1e-5)


@pytest.mark.parametrize(
    ("n", "capacity"), [pytest.param(4, (2, 2), marks=pytest.mark.slow), (4, (2, 1, 3)), (2, (9, 2))]
)
def test_frequencies(n, capacity):
    """200,000 draws: of few taken places, few free ones, and none. False-fail rate 1e-6 each."""
    values, shares = counted(n, capacity)
    draws = UniformAssignment(n, capacity).sample(jax.random.key(1), (200_000,))
    assert chisquare_p_value(draws, values, shares) > FALSE_FAIL_RATE
    if sum(capacity) > n:  # Gumbel-Matching of equal logits is a wrong variant: rejected
        wrong = GumbelMatching(jnp.zeros((n, len(capacity))), capacity).sample(jax.random.key(1), (20_000,))
        assert chisquare_p_value(wrong, values, shares) < FALSE_FAIL_RATE


@pytest.mark.slow
def test_loads_of_a_large_draw():
    """1,000 draws of 600 datapoints: mean and variance of the loads are hypergeometric, and places are dealt to all.

    False-fail rate 1e-6 for each set of z-scores. Binomial loads, those of independent draws, are rejected.
    """
    n, capacity, draws = 600, np.array([600, 300, 100]), 1000
    value = np.asarray(UniformAssignment(n, capacity).sample(jax.random.key(0), (draws,)))
    loads = (value[..., None] == np.arange(3)).sum(axis=1)
    share, total = capacity / capacity.sum(), capacity.sum()
    variance = n * share * (1 - share) * (total - n) / (total - 1)
    z = np.abs(loads.mean(axis=0) - n * share) / np.sqrt(variance / draws)
    assert z.max() < z_limit(3)
    ratio_error = np.sqrt(2 / (draws - 1))
    assert (np.abs(loads.var(axis=0, ddof=1) / variance - 1) / ratio_error).max() < z_limit(3)
    binomial = n * share * (1 - share)
    assert (np.abs(loads.var(axis=0, ddof=1) / binomial - 1) / ratio_error).min() > z_limit(3)
    z = np.abs((value == 0).mean(axis=0) - share[0]) / np.sqrt(share[0] * (1 - share[0]) / draws)
    assert z.max() < z_limit(n)


LARGE = [
    (65_536, (8_192,) * 8),
    (65_536, (16_384,) * 8),
    (65_536, (65_535, 1)),
    (65_536, (2**20, 3)),
    (65_536, tuple(range(1_000, 1_064))),
    (65_536, (2**29, 2**28, 2**28)),
    (30_000, (65_536, 1)),
]


@pytest.mark.parametrize(("n", "capacity"), [SLOWLY(*case) if case in LARGE[::2] else case for case in LARGE])
def test_log_prob_is_accurate_for_large_numbers(n, capacity):
    """Within 1e-6 of itself in float32, against sums in Python; log-gammas agree where they do not cancel."""
    d = UniformAssignment(n, capacity)
    value = d.sample(jax.random.key(0))
    assert d.support(value)
    loads = np.bincount(value, minlength=len(capacity)).tolist()
    expected = one_by_one(capacity, loads)
    assert float(d.log_prob(value)) == pytest.approx(expected, rel=3e-7)
    by_gamma = sum(math.lgamma(c + 1) - math.lgamma(c - load + 1) for c, load in zip(capacity, loads, strict=True))
    by_gamma -= math.lgamma(sum(capacity) + 1) - math.lgamma(sum(capacity) - n + 1)
    assert by_gamma == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "capacity"), [LARGE[2], (2_000, (1_999, 2)), (100, (10**6, 10**3))])
def test_entropy_of_large_numbers(n, capacity):
    """About 1e-7 nats per datapoint in float32; hypergeometric sums in float64 are the truth."""
    from scipy import stats
    from scipy.special import gammaln

    total = sum(capacity)
    expected = gammaln(total + 1) - gammaln(total - n + 1)
    for c in capacity:
        loads = np.arange(max(0, n - total + c), min(n, c) + 1)
        expected -= stats.hypergeom.pmf(loads, total, c, n) @ (gammaln(c + 1) - gammaln(c - loads + 1))
    assert float(UniformAssignment(n, capacity).entropy()) == pytest.approx(expected, abs=4e-7 * n, rel=1e-6)


def test_mask_leaves_datapoints_out():
    """Whoever takes part is as in a smaller problem; the masks of a batch differ."""
    mask = np.array([[True, False, True, True], [False, True, True, False]])
    d = UniformAssignment(4, (2, 2), mask=mask)
    assert (d.batch_shape, d.event_shape, d.capacity.shape) == ((2,), (4,), (1, 2))
    draws = np.asarray(d.sample(jax.random.key(0), (40_000,)))
    assert d.support(draws).all()
    assert (draws[:, ~mask] == 2).all()
    for row, present in enumerate(mask):
        values, shares = counted(int(present.sum()), (2, 2))
        assert chisquare_p_value(draws[:, row][:, present], values, shares) > FALSE_FAIL_RATE
        whole = np.full((len(values), 4), 2, np.int32)
        whole[:, present] = values
        alone = UniformAssignment(4, (2, 2), mask=present)
        np.testing.assert_allclose(np.exp(alone.log_prob(whole)), shares, rtol=1e-6)
        assert float(d.entropy()[row]) == pytest.approx(-np.sum(shares * np.log(shares)), rel=1e-6)
        np.testing.assert_array_equal(d.marginal_probs()[row], np.where(present[:, None], [0.5, 0.5], 0))
    nobody = UniformAssignment(3, (1, 1), mask=np.zeros(3, bool))  # more datapoints than places, but none takes part
    assert nobody.sample(jax.random.key(0)).tolist() == [2, 2, 2]
    assert (nobody.log_prob(jnp.array([2, 2, 2])), nobody.entropy()) == (0, 0)


@pytest.mark.slow
def test_batches_of_capacities_are_their_rows():
    capacity = np.array([[[2, 2, 2]], [[6, 1, 1]]])
    mask = np.array([[True] * 4, [True] * 3 + [False], [False] * 4])
    d = UniformAssignment(4, capacity, mask=mask)
    assert (d.batch_shape, d.shape((5,))) == ((2, 3), (5, 2, 3, 4))
    value = d.sample(jax.random.key(0))
    assert d.support(value).all()
    for i, j in itertools.product(range(2), range(3)):
        row = UniformAssignment(4, capacity[i, 0], mask=mask[j])
        assert d.log_prob(value)[i, j] == pytest.approx(float(row.log_prob(value[i, j])), rel=1e-6)
        assert d.entropy()[i, j] == pytest.approx(float(row.entropy()), rel=1e-6)
        np.testing.assert_allclose(d.marginal_probs()[i, j], row.marginal_probs(), rtol=1e-6)


def test_jit_vmap_and_grad():
    """Traced capacities draw and weigh as known ones do; nothing here has a derivative but what is multiplied."""
    capacities = np.array([[4, 2], [3, 1], [40, 1]], np.int32)
    keys = jax.random.split(jax.random.key(0), 3)

    def both(capacity, key, scale=1.0):
        d = UniformAssignment(4, capacity)
        value = d.sample(key)
        return value, scale * d.log_prob(value), d.entropy(), d.marginal_probs()

    mapped = jax.jit(jax.vmap(both))(capacities, keys)
    for i, (capacity, key) in enumerate(zip(capacities, keys, strict=True)):
        value, *rest = both(capacity, key)
        np.testing.assert_array_equal(mapped[0][i], value)
        for found, expected in zip(mapped[1:], rest, strict=True):
            np.testing.assert_allclose(found[i], expected, rtol=1e-6)
    slope = jax.jit(jax.grad(lambda scale: both(capacities[0], keys[0], scale)[1]))(2.0)
    assert slope == both(capacities[0], keys[0])[1]


def test_too_few_places_that_are_traced():
    """-1 throughout, as for a matching that does not exist; -inf; and NaN."""

    @jax.jit
    def everything(capacity):
        d = UniformAssignment(4, capacity)
        return d.sample(jax.random.key(0)), d.log_prob(jnp.array([0, 0, 1, 1])), d.entropy(), d.marginal_probs()

    for capacity in (np.array([2, 1], np.int32), np.array([2**31 - 1, 2], np.int32)):  # and too many to draw from
        value, log_prob, entropy, _ = everything(capacity)
        assert value.tolist() == [-1] * 4
        assert np.isnan(entropy)
        assert np.isneginf(log_prob) == (capacity.sum() < 4)
    assert np.isnan(everything(np.array([2, 1], np.int32))[-1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 2), r"capacity must be \(\.\.\., k\) ints, one for every expert, which says how many .* got shape \(\)"),
        ((4, np.zeros((3, 0), int)), r"how many experts there are, got shape \(3, 0\)"),
        ((4, (2.5, 2)), r"capacity must be \(\.\.\., k\) ints, one for every expert, got \(2\.5, 2\)"),
        ((4, (0, 5)), "capacity must be at least 1"),
        ((4, (2, 1)), "capacity has room for 3 datapoints .* but there are 4"),
        ((4, [[2, 2], [2, 1]]), "capacity has room for 3 datapoints"),
        ((4, (2**30, 1)), r"capacity must have at most 2\*\*30 places in all, got 1073741825"),
        ((-1, (2, 2)), "num_datapoints must be an int of at least 0, got -1"),
        ((2.5, (2, 2)), r"num_datapoints must be an int of at least 0, got 2\.5"),
        ((4, (2, 2), np.ones(3, bool)), r"mask must be bool of shape \(4,\)"),
        ((4, (2, 2), np.ones(4)), r"mask must be bool of shape \(4,\)"),
        ((4, [[2, 2]] * 2, np.ones((3, 4), bool)), r"capacity and mask must broadcast, got \(2,\) and \(3,\)"),
    ],
)
def test_errors(arguments, message):
    *arguments, mask = arguments if len(arguments) == 3 else (*arguments, None)
    with pytest.raises(ValueError, match=message):
        UniformAssignment(*arguments, mask=mask)


def test_values_of_arguments_without_validation():
    d = UniformAssignment(4, (2, 1), validate_args=False)
    for method in (d.validate_args, lambda: d.sample(jax.random.key(0))):
        with pytest.raises(ValueError, match="capacity has room for 3 datapoints"):
            method()
    assert jnp.isneginf(d.log_prob(jnp.array([0, 0, 1, 1])))
    with pytest.raises(RuntimeError, match="Cannot validate arguments"):
        jax.jit(lambda c: UniformAssignment(4, c).validate_args(strict=True))(jnp.array([2, 2]))


def test_programs_that_forbid_promotion(x64):
    mask = jnp.array([True, True, False, True])
    with jax.numpy_dtype_promotion("strict"):
        d = UniformAssignment(4, (3, 4), mask=mask)
        value = d.sample(jax.random.key(0))
        found = d.log_prob(value), d.entropy(), d.marginal_probs()
    assert value.dtype == jnp.int32
    assert {x.dtype for x in found} == {jnp.dtype(jnp.float64 if x64 else jnp.float32)}
