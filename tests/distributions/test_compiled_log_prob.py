"""The log-probability of assignments as a CPU computes it, compiled, against the same in JAX.

Both take the same draws and, but for rounding, the same steps, so that with two and three experts they agree to
rounding. With more, they draw along eigenvectors, of which either sign is right: here the JAX implementation takes the
sign that the compiled one takes. In double precision they then agree to far less than their errors, where both let the
same proposal win and stop at the same step. Newton's method stops where the promised gain is below 1e-5, and two ends
of it that differ by that make estimates that differ by a millionth of their errors.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from scipy.special import gammaln

from gumbel_moe._custom_calls import AVAILABLE
from gumbel_moe.distributions import GumbelMatching, _compiled_log_prob, enumerate_assignments, matching_log_prob
from gumbel_moe.distributions._log_prob_in_jax import Precision, estimate_many
from gumbel_moe.distributions._price_integral import _competition

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="installed without the custom calls")
SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
BATCH = 16  # of problems that share a compilation


@pytest.fixture
def same_signs(monkeypatch):
    """Eigenvectors of which the largest entry is positive."""
    laplace = _competition.laplace

    def signed(found, heavy):
        proposal = laplace(found, heavy)
        top = jnp.take_along_axis(proposal.factor, jnp.argmax(jnp.abs(proposal.factor), axis=0)[None], axis=0)
        return proposal._replace(factor=proposal.factor * jnp.where(top < 0, -1, 1))

    monkeypatch.setattr(_competition, "laplace", signed)


def problems(n, k, seed, dtype=float, batch=BATCH):
    """Logits of several scales, assignments, masks and capacities: free places, forbidden pairs, absent datapoints."""
    rng = np.random.default_rng(seed)
    logits = rng.choice([0.5, 2.0, 5.0], (batch, 1, 1)) * rng.normal(size=(batch, n, k))
    assignment = np.stack([rng.permutation(np.arange(n) % k) for _ in range(batch)])
    barred = (rng.random((batch, n, k)) < 0.2) & (np.arange(batch) % 3 == 0)[:, None, None]
    own = np.arange(k) == assignment[..., None]
    logits = np.where(barred & ~own, -np.inf, logits)
    present = (rng.random((batch, n)) < 0.8) | (np.arange(batch) % 4 > 0)[:, None]
    capacity = np.sum(own & present[..., None], axis=1)
    room = rng.integers(0, 2, (batch, k)) * (np.arange(batch) % 2 == 0)[:, None]
    logits = np.where(present[..., None], logits, 0)
    z, places = np.where(present, assignment, k), np.maximum(capacity + room, 1)
    return [jnp.asarray(logits, dtype), jnp.asarray(z, jnp.int32), jnp.asarray(present), jnp.asarray(places, jnp.int32)]


def estimates(function, num_draws=512, target_error=None, by_sampling=False):
    """Values, errors and scores of a batch of problems."""
    key = jax.random.key(0)[None]
    key = key if function is estimate_many else jax.random.key_data(key)

    def total(logits, *rest):
        value, error = function(logits, *rest, key, Precision(num_draws, target_error, by_sampling))
        return value.sum(), (value, error)

    def both(*arrays):
        score, (value, error) = jax.grad(total, has_aux=True)(*arrays)
        return value, error, score

    return jax.jit(both)


def compared(arrays, **settings):
    """Those of both implementations."""
    functions = _compiled_log_prob.compiled_estimates, estimate_many
    return [jax.tree.map(partial(np.asarray, dtype=float), estimates(f, **settings)(*arrays)) for f in functions]


@pytest.mark.parametrize("x64", [False, SLOWLY(True)], indirect=True)
@pytest.mark.parametrize("k", [2, SLOWLY(3)])
def test_quadrature_to_rounding(k, x64):
    arrays = problems(7, k, 0)
    (value, error, score), (expected, _, slopes) = compared(arrays)
    tolerance = 1e-9 if x64 else 2e-5
    np.testing.assert_allclose(value, expected, rtol=tolerance / 10, atol=tolerance)
    assert error.max() < (1e-6 if x64 else 1e-4)
    np.testing.assert_allclose(score, slopes, atol=100 * tolerance)
    np.testing.assert_allclose(score.sum(axis=2), 0, atol=100 * tolerance)


@pytest.mark.parametrize(
    ("n", "k", "settings"),
    [
        SLOWLY(7, 2, {"by_sampling": True}),
        SLOWLY(9, 3, {"by_sampling": True}),
        (12, 5, {}),
        SLOWLY(5, 5, {}),
        SLOWLY(60, 4, {"num_draws": 100}),
        SLOWLY(36, 12, {}),
        SLOWLY(14, 7, {"num_draws": 2048, "target_error": 0.02}),
    ],
)
def test_sampling_with_the_same_draws(n, k, settings, same_signs):
    with jax.enable_x64(True):
        (value, error, score), (expected, expected_error, slopes) = compared(problems(n, k, 0), **settings)
    off = np.abs(value - expected) / error
    assert (off < 3).all()
    assert np.median(off) < 1e-6
    same = off < 1e-3  # where another proposal has won, all numbers are those of other draws
    assert same.mean() > 0.8
    np.testing.assert_allclose(error[same], expected_error[same], rtol=1e-2)
    np.testing.assert_allclose(score[same], slopes[same], atol=1e-3)


@pytest.mark.slow
def test_sampling_in_single_precision(same_signs):
    (value, error, score), (expected, expected_error, slopes) = compared(problems(12, 5, 0, np.float32))
    off = np.abs(value - expected) / error
    assert (off < 3).all()
    assert np.median(off) < 0.01
    same = off < 0.1
    assert same.mean() > 0.8
    np.testing.assert_allclose(error[same], expected_error[same], rtol=0.1)
    np.testing.assert_allclose(score[same], slopes[same], atol=0.03)


both = estimates(_compiled_log_prob.compiled_estimates)


@pytest.mark.slow
@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([4, 6, 12]), st.integers(0, 2), st.booleans())
def test_the_two_widths_agree(seed, k, rounds, whole):
    """Other draws, other rounding; within the reported errors of both."""
    n = k * (rounds + 1) if whole else k * (rounds + 1) + 1
    with jax.enable_x64(True):
        wide = problems(n, k, seed, batch=4)
        narrow = [wide[0].astype(jnp.float32), *wide[1:]]
        logits, _, present, _ = map(np.asarray, wide)
        found = [jax.tree.map(partial(np.asarray, dtype=float), both(*arrays)) for arrays in (wide, narrow)]
    values, errors, scores = zip(*found, strict=True)
    assert (abs(values[0] - values[1]) <= 5 * np.hypot(*errors) + 1e-4).all()
    for score in scores:
        assert np.isfinite(score).all()
        np.testing.assert_allclose(score.sum(axis=2), 0, atol=1e-4)
        assert (score[np.isneginf(logits)] == 0).all()
        assert (score[~present] == 0).all()


@pytest.mark.slow
@pytest.mark.each_choice
@pytest.mark.parametrize(("n", "k"), [(8, 4), (64, 8), (128, 16), (1024, 64)])
def test_equal_logits(n, k, x64):
    """`P = prod c_j! / n!`, and the gradient is `1(z_i = j) - (sum of what all others have) / ...`: zero on average."""
    logits, assignment = jnp.zeros((n, k)), jnp.arange(n, dtype=jnp.int32) % k
    exact = k * gammaln(n // k + 1) - gammaln(n + 1)
    (value, error), score = jax.value_and_grad(
        lambda a: (lambda e: (e.value, e.error))(matching_log_prob(a, assignment, n // k)), has_aux=True
    )(logits)
    assert abs(float(value) - exact) < 4 * float(error)
    own = np.arange(k) == np.asarray(assignment)[:, None]
    # All experts are alike, and all datapoints: the own expert's slope is one number, the others' minus its share.
    np.testing.assert_allclose(score[own], score[own].mean(), atol=0.05)
    np.testing.assert_allclose(score[~own], -score[own].mean() / (k - 1), atol=0.05)


@pytest.mark.each_choice
@pytest.mark.parametrize("capacity", [(2, 1, 1, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_probabilities_sum_to_one_and_their_gradients_to_zero(capacity, scale):
    """All outcomes; errors share the price vectors, so they are added rather than averaged out."""
    logits = scale * jax.random.normal(jax.random.key(3), (4, 4))
    values = enumerate_assignments(4, capacity)

    def total(a):
        estimate = matching_log_prob(a, values, capacity, num_draws=4096)
        return jnp.exp(estimate.value).sum(), estimate

    gradient, (log_prob, error) = jax.grad(total, has_aux=True)(logits)
    slack = 4 * float((np.exp(log_prob) * error).sum())
    assert abs(float(np.exp(log_prob).sum()) - 1) < slack
    assert jnp.abs(gradient).max() < 4 * slack


@pytest.mark.slow
def test_finite_differences():
    """Between equal proposals the value is smooth, and its slope is the gradient at fixed price vectors."""
    with jax.enable_x64(True):
        logits = jax.random.normal(jax.random.key(0), (24, 6))
        value = jnp.arange(24, dtype=jnp.int32) % 6
        log_prob = jax.value_and_grad(lambda a: matching_log_prob(a, value, (5, 4, 4, 4, 4, 4), num_draws=20_000).value)
        _, gradient = log_prob(logits)
        for direction in np.random.default_rng(0).normal(size=(3, 24, 6)):
            slope = (log_prob(logits + 0.01 * direction)[0] - log_prob(logits - 0.01 * direction)[0]) / 0.02
            assert float(jnp.sum(gradient * direction)) == pytest.approx(float(slope), abs=0.1)


LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 4)), jnp.float32)
VALUES = jnp.stack([jnp.roll(jnp.arange(8, dtype=jnp.int32) % 4, i) for i in range(3)])


def log_prob(a, z):
    return matching_log_prob(a, z, 2).value


def test_batches_are_the_problems_one_by_one():
    alone = [jax.value_and_grad(log_prob)(a, z) for a, z in zip(LOGITS, VALUES, strict=True)]
    ways = {
        "vmap": jax.vmap(jax.value_and_grad(log_prob))(LOGITS, VALUES),
        "map": jax.lax.map(lambda x: jax.value_and_grad(log_prob)(*x), (LOGITS, VALUES)),
        "broadcast": (log_prob(LOGITS, VALUES), jax.grad(lambda a: log_prob(a, VALUES).sum())(LOGITS)),
        "nested": jax.tree.map(
            lambda x: x[0], jax.vmap(jax.vmap(jax.value_and_grad(log_prob)))(LOGITS[None], VALUES[None])
        ),
    }
    for name, (value, score) in ways.items():
        np.testing.assert_array_equal(value, jnp.stack([x[0] for x in alone]), err_msg=name)
        np.testing.assert_array_equal(score, jnp.stack([x[1] for x in alone]), err_msg=name)


@pytest.mark.slow
def test_one_set_of_logits_for_many_assignments_and_keys():
    shared = jax.vmap(jax.value_and_grad(log_prob), (None, 0))(LOGITS[0], VALUES)
    for i in range(3):
        value, score = jax.value_and_grad(log_prob)(LOGITS[0], VALUES[i])
        np.testing.assert_array_equal(shared[0][i], value)
        np.testing.assert_array_equal(shared[1][i], score)
    keys = jax.random.split(jax.random.key(5), 3)
    keyed = jax.vmap(lambda key: matching_log_prob(LOGITS[0], VALUES[0], 2, key=key).value)(keys)
    assert len(set(np.asarray(keyed).tolist())) == 3
    assert keyed[1] == matching_log_prob(LOGITS[0], VALUES[0], 2, key=keys[1]).value
    capacities = jnp.array([[2, 2, 2, 2], [2, 3, 2, 2]])
    mapped = jax.vmap(lambda c: matching_log_prob(LOGITS[0], VALUES[0], c).value)(capacities)
    np.testing.assert_array_equal(mapped, [matching_log_prob(LOGITS[0], VALUES[0], c).value for c in capacities])


def test_without_jit_and_inside_loops_and_conditions():
    expected = log_prob(LOGITS[0], VALUES[0])
    with jax.disable_jit():
        assert log_prob(LOGITS[0], VALUES[0]) == expected
    _, scanned = jax.lax.scan(lambda c, a: (c, jax.grad(log_prob)(a, VALUES[0])), 0, LOGITS)
    np.testing.assert_array_equal(scanned[0], jax.grad(log_prob)(LOGITS[0], VALUES[0]))
    either = jax.jit(lambda on: jax.lax.cond(on, lambda: log_prob(LOGITS[0], VALUES[0]), lambda: jnp.float32(0)))
    assert either(True) == expected
    assert jax.checkpoint(jax.grad(log_prob))(LOGITS[0], VALUES[0]).shape == (8, 4)


def test_forward_mode_is_the_transpose_of_reverse_mode():
    direction = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)
    _, slope = jax.jvp(lambda a: matching_log_prob(a, VALUES[0], 2), (LOGITS[0],), (direction,))
    assert slope.value == pytest.approx(float(jnp.sum(jax.grad(log_prob)(LOGITS[0], VALUES[0]) * direction)), rel=1e-5)
    assert slope.error == 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, 8])
def test_hessian(n):
    """Second derivatives come from the JAX implementation: they are the differences of the scores."""
    k = 2 if n == 4 else 4
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(2).normal(size=(n, k)))
        value = jnp.arange(n, dtype=jnp.int32) % k
        score = jax.grad(lambda a: matching_log_prob(a, value, n // k).value)
        direction = jnp.asarray(np.random.default_rng(1).normal(size=(n, k)))
        product = jax.jvp(score, (logits,), (direction,))[1]
        other = jax.grad(lambda a: jnp.sum(score(a) * direction))(logits)
        np.testing.assert_allclose(product, other, atol=1e-8)
        if k == 2:
            expected = (score(logits + 1e-5 * direction) - score(logits - 1e-5 * direction)) / 2e-5
            np.testing.assert_allclose(product, expected, atol=1e-6)


def test_the_program_holds_one_call():
    def text(*platforms):
        lowered = jax.jit(jax.value_and_grad(log_prob)).trace(LOGITS[0], VALUES[0]).lower(lowering_platforms=platforms)
        return lowered.as_text()

    assert text("cpu").count("gumbel_moe_log_prob_and_score_f32") == 1
    assert "while" not in text("cpu")
    plain = jax.jit(log_prob).lower(LOGITS[0], VALUES[0]).as_text()
    assert plain.count("gumbel_moe_log_prob_f32") == 1  # without the score


@pytest.mark.slow
def test_every_platform_gets_its_own():
    lowered = jax.jit(jax.vmap(jax.grad(log_prob))).trace(LOGITS, VALUES)
    assert "gumbel_moe" not in lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "gumbel_moe_log_prob_and_score_f32" in lowered.lower(lowering_platforms=("cuda", "cpu")).as_text()


@pytest.mark.parametrize("checked", [True, SLOWLY(False)])
def test_shard_map(checked):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    one = jax.vmap(jax.value_and_grad(log_prob), (0, None))
    mapped = jax.shard_map(one, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=checked)
    found, expected = jax.jit(mapped)(LOGITS, VALUES[0]), one(LOGITS, VALUES[0])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_what_is_no_problem():
    """NaN for what are no logits, -inf for what is impossible; and no gradient, in a batch with others."""
    logits = jnp.stack([LOGITS[0], LOGITS[0].at[1, 1].set(jnp.nan), LOGITS[0].at[0, 0].set(-jnp.inf), LOGITS[0]])
    values = jnp.stack([VALUES[0]] * 3 + [jnp.zeros(8, jnp.int32)])
    value, score = jax.jit(jax.vmap(jax.value_and_grad(log_prob)))(logits, values)
    assert jnp.isfinite(value[0])
    assert jnp.isnan(value[1])
    assert jnp.isneginf(value[2:]).all()
    assert jnp.isfinite(score).all()
    assert (score[1:] == 0).all()


def test_a_number_too_large_for_int32_is_no_expert():
    with jax.enable_x64(True):
        wide = np.asarray(VALUES[0], np.int64)
        assert log_prob(LOGITS[0], wide) == log_prob(LOGITS[0], VALUES[0])
        for off in (2**32, -(2**32)):
            assert jnp.isneginf(log_prob(LOGITS[0], wide + off * (np.arange(8) == 3)))
        assert jnp.isneginf(log_prob(LOGITS[0], (wide + 2**32).astype(np.uint64)))


@pytest.mark.parametrize("n", [400, 4096])
def test_a_plateau_wider_than_the_range_of_the_exponential(n):
    """Half of each expert's datapoints prefer the other one: for 6000 nats no price is better than another."""
    with jax.enable_x64(True):
        value = np.arange(n) % 2
        gap = np.where(np.arange(n) // 2 % 2, -3000.0, 3000.0)
        log_prob, _ = matching_log_prob(np.stack([0 * gap, gap], axis=1), value, n // 2)
        price = np.linspace(-4000, 4000, 400_001)
        to_first, to_second = (np.logaddexp(0, side * (3000 - price)) for side in (1, -1))
        to_first_too, to_second_too = (np.logaddexp(0, side * (-3000 - price)) for side in (1, -1))
        own = -n / 4 * (to_first + to_second + to_first_too + to_second_too)
        terms = own + np.log(n / 4) + np.logaddexp(-to_first, -to_first_too)
        expected = terms.max() + np.log(np.sum(np.exp(terms - terms.max())) * (price[1] - price[0]))
        assert float(log_prob) == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
def test_a_target_saves_draws():
    logits = 2 * jax.random.normal(jax.random.key(0), (16, 8))
    value = GumbelMatching(logits, 2).sample(jax.random.key(1))
    reached = matching_log_prob(logits, value, 2, num_draws=8192, target_error=0.03)
    every = matching_log_prob(logits, value, 2, num_draws=8192)
    assert every.error < reached.error <= 0.03
    assert abs(reached.value - every.value) < 4 * jnp.hypot(reached.error, every.error)
    batch = jax.vmap(lambda a: matching_log_prob(a, value, 2, num_draws=8192, target_error=0.03))(logits[None])
    assert (batch.value[0], batch.error[0]) == (reached.value, reached.error)


@pytest.mark.slow
@pytest.mark.parametrize("k", [SLOWLY(2), 3])
def test_sampling_where_quadrature_is_possible(k):
    """16 values within 4.5 standard errors of what is exact: by chance not so once in 9,000 runs."""
    arrays = problems(9, k, 1)
    exact, _, slopes = estimates(_compiled_log_prob.compiled_estimates)(*arrays)
    value, error, score = estimates(_compiled_log_prob.compiled_estimates, by_sampling=True)(*arrays)
    assert (jnp.abs(value - exact) < 4.5 * error).all()
    assert (error > 1e-4).any()  # it has been sampled
    np.testing.assert_allclose(score, slopes, atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("k", [SLOWLY(2), 3])
def test_a_target_saves_nodes(k):
    arrays = problems(9, k, 1)
    exact, least, slopes = estimates(_compiled_log_prob.compiled_estimates)(*arrays)
    value, error, score = estimates(_compiled_log_prob.compiled_estimates, target_error=0.01)(*arrays)
    assert (error <= 0.01).all()
    assert (jnp.abs(value - exact) <= error + least).all()
    assert jnp.mean(error > 2 * least) > 0.5  # fewer nodes did
    np.testing.assert_allclose(score, slopes, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("k", [SLOWLY(2), 3])
def test_a_target_does_not_miss_what_is_narrow(k, x64):
    """Halves of few nodes can agree by symmetry: at equal logits, and where the integrand is narrow."""
    n = 2 * k
    value = jnp.arange(n, dtype=jnp.int32) % k
    scales = jnp.asarray(np.repeat([0.0, 1.0, 3.0, 10.0, 30.0], 20), float)
    logits = scales[:, None, None] * jnp.asarray(np.random.default_rng(0).normal(size=(100, n, k)), float)
    far = 20.0 * jnp.eye(k, dtype=logits.dtype)[value][None]
    logits = jnp.concatenate([logits, far, jnp.zeros_like(far)])
    exact = matching_log_prob(logits, value, 2)
    for target in (0.1, 1e-3):
        found = matching_log_prob(logits, value, 2, target_error=target)
        assert (jnp.abs(found.value - exact.value) <= 4 * (found.error + exact.error)).all()
        assert (found.error <= jnp.maximum(target, 1.01 * exact.error)).all()


def test_what_it_does_not_suit():
    for key in (None, jax.random.key(0)):
        assert _compiled_log_prob.suits(8, 4, key)
        assert not _compiled_log_prob.suits(0, 4, key)
        assert not _compiled_log_prob.suits(600, 300, key)
        with jax.threefry_partitionable(False):
            assert not _compiled_log_prob.suits(8, 4, key)
    assert not _compiled_log_prob.suits(8, 4, jax.random.key(0, impl="rbg"))
    with jax.default_prng_impl("rbg"):
        assert not _compiled_log_prob.suits(8, 4, None)
