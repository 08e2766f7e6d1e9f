"""The exact probability of a matching: against tables, closed forms, enumeration and the formula spelled out."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import (
    GumbelMatching,
    enumerate_assignments,
    matching_log_prob,
    outcome_probabilities,
)
from tests.distributions.price_integral import integral_on_a_grid

SLOWLY = partial(pytest.param, marks=pytest.mark.slow)
TABLES = json.loads(Path(__file__).parents[1].joinpath("data", "gumbel_matching_tables.json").read_text())["tables"]


# Datapoints, by the number of experts: one compilation for each serves all tests that need no other size.
SIZE = {2: 6, 3: 4}
AT_ONCE = 6


def in_portions(logits, values, capacity):
    """`matching_log_prob` of values `(outcomes, n)`, as many at a time for all problems: the shape is compiled once."""
    number = len(values)
    values = np.resize(
        np.asarray(values, np.int32), (-(-number // AT_ONCE) * AT_ONCE, logits.shape[0])
    )  # repeats the first
    parts = [matching_log_prob(logits, part, capacity) for part in np.split(values, len(values) // AT_ONCE)]
    value, error = (np.concatenate(part)[:number] for part in zip(*parts, strict=True))
    return value, error


def filled_up(logits, values, capacity):
    """The same probabilities with more datapoints: they may go to one expert each, which has a place more for them."""
    n, k = logits.shape
    forced = np.arange(SIZE[k] - n) % k
    logits = jnp.asarray(np.concatenate([logits, np.where(np.arange(k) == forced[:, None], 0.3, -np.inf)]), float)
    values = np.concatenate([values, np.broadcast_to(forced, (len(values), len(forced)))], axis=1)
    return logits, values, np.add(capacity, np.bincount(forced, minlength=k))


def check_table(value, error, probs, x64):
    off = np.abs(np.asarray(value, np.float64) - np.log(probs))
    limit = 1e-6 if x64 else 1e-5
    assert off.max() < limit
    assert (off <= 4 * np.asarray(error)).all()
    assert np.asarray(error).max() < limit


@pytest.mark.parametrize("table", TABLES, ids=lambda t: f"n={len(t['logits'])}-c={t['capacity']}")
def test_exact_tables(table, x64):
    logits, values, capacity = filled_up(np.array(table["logits"]), table["assignments"], table["capacity"])
    check_table(*in_portions(logits, values, capacity), table["probs"], x64)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES, ids=lambda t: f"n={len(t['logits'])}-c={t['capacity']}")
def test_exact_tables_each_at_its_own_size(table, x64):
    """One compilation for each."""
    estimate = matching_log_prob(jnp.asarray(table["logits"], float), table["assignments"], table["capacity"])
    check_table(*estimate, table["probs"], x64)


@pytest.mark.parametrize(
    ("capacity", "n", "scale", "reach"),
    [
        SLOWLY((2, 2, 2), 6, 1.0, 14.0),
        SLOWLY((1, 3, 2), 6, 3.0, 26.0),
        ((2, 4, 3), 7, 1.0, 20.0),
        SLOWLY((2, 2, 2, 2), 8, 1.0, 12.0),
    ],
)
def test_formula_on_a_plain_grid(capacity, n, scale, reach):
    """An independent quadrature in float64; for four experts it checks the sampling within its error."""
    logits = scale * np.random.default_rng(1).normal(size=(n, len(capacity)))
    assignment = np.repeat(np.arange(len(capacity)), capacity)[:n]
    bounded = n < sum(capacity)
    expected = integral_on_a_grid(logits, assignment, np.array(capacity), reach, 1200 if bounded else 72)
    with jax.enable_x64(True):
        value, error = map(float, matching_log_prob(logits, assignment, capacity))
    # On a half-line the midpoint rule of the oracle converges slowly.
    limit = 4 * error if len(capacity) > 3 else (2e-4 if bounded else 1e-6)
    assert abs(value - expected) < limit
    assert error < 0.05


@pytest.mark.parametrize("capacity", [(1, 2, 1), (1, 1, 4)])  # full, and with an expert that always has room
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_probabilities_sum_to_one(capacity, scale, x64):
    logits = scale * jax.random.normal(jax.random.key(0), (4, len(capacity)), float)
    value, _ = in_portions(logits, enumerate_assignments(4, capacity), capacity)
    assert np.exp(value).sum() == pytest.approx(1, abs=1e-9 if x64 else 1e-5)


def test_two_datapoints_in_closed_form(x64):
    """`P(0, 1) = y (y - 1 - log y) / (y - 1)^2` with `y = exp(delta)`, here up to a spread of 50 nats."""
    for delta in (-50.0, -20.0, -3.0, 1.0, 20.0, 50.0):
        logits = jnp.array([[delta / 2, 0.0], [0.0, delta / 2]])
        y = np.exp(delta)
        expected = np.log(y) + np.log(y - 1 - delta) - 2 * np.log(abs(y - 1)) if delta > 0 else None
        if expected is None:  # the same without cancellation
            expected = delta + np.log(y - 1 - delta) - 2 * np.log1p(-y)
        value, _ = in_portions(*filled_up(logits, [[0, 1]], (1, 1)))
        assert value == pytest.approx(expected, abs=1e-9 if x64 else 2e-5, rel=0 if x64 else 1e-6)


@pytest.mark.parametrize(("n", "capacity"), [(1, 1), (SIZE[2], (7, 1)), (4, 4), (SIZE[3], (9, 9, 9))])
def test_one_expert_and_room_for_all(n, capacity):
    """`k = 1` has one outcome; where everyone has room, draws are independent."""
    k = np.size(capacity)
    logits = jax.random.normal(jax.random.key(0), (n, k))
    log_prob, error = in_portions(logits, np.zeros((1, n), np.int32), capacity)
    expected = 0.0 if k == 1 else jax.nn.log_softmax(logits)[:, 0].sum()
    assert log_prob == pytest.approx(float(expected), abs=1e-5)
    assert error < 1e-5


@pytest.mark.parametrize(("n", "capacity"), [(6, (2, 2, 2)), SLOWLY(6, (1, 4, 3)), SLOWLY(12, (3, 3, 3, 3))])
def test_invariances_at_a_spread_of_50(n, capacity):
    """Adding a number to a row changes nothing; nor to a column, when every place is taken."""
    k = np.size(capacity) if np.size(capacity) > 1 else n // capacity
    logits = jax.random.normal(jax.random.key(0), (n, k))
    value = GumbelMatching(logits, capacity).sample(jax.random.key(1))
    plain, error = matching_log_prob(logits, value, capacity)
    shifts = [50 * jax.random.uniform(jax.random.key(2), (n, 1), minval=-1)]
    if np.sum(np.broadcast_to(capacity, k)) == n:
        shifts.append(50 * jax.random.uniform(jax.random.key(3), (1, k), minval=-1))
    for shift in shifts:
        shifted, shifted_error = matching_log_prob(logits + shift, value, capacity)
        assert abs(plain - shifted) < 4 * jnp.hypot(error, shifted_error) + 1e-4


@pytest.mark.slow
def test_forbidden_experts():
    """Conditioned on what is allowed: the limit of very small logits, and 0 where a forbidden pair is used."""
    logits = jax.random.normal(jax.random.key(0), (6, 3))
    barred = logits.at[0, 0].set(-jnp.inf).at[3, 1].set(-jnp.inf).at[3, 2].set(-jnp.inf)
    probs = outcome_probabilities(barred, 2)
    np.testing.assert_allclose(probs, outcome_probabilities(jnp.maximum(barred, -60), 2), atol=1e-5)
    values = enumerate_assignments(6, 2, 3)
    used = jnp.isneginf(jnp.take_along_axis(barred[None], values[..., None], axis=2)).any(axis=(1, 2))
    assert (probs[used] == 0).all()
    assert (probs[~used] > 0).all()
    gradient = jax.grad(lambda a: matching_log_prob(a, values[~used][0], 2).value)(barred)
    assert jnp.isfinite(gradient).all()
    assert (gradient[jnp.isneginf(barred)] == 0).all()


@pytest.mark.parametrize("k", [3, SLOWLY(4)])
def test_forbidden_experts_that_split_the_problem(k):
    """Two groups of experts that share no datapoint: the probabilities of the groups multiply."""
    a, b = jax.random.normal(jax.random.key(0), (2, 4, 2))
    b = b[:2, : k - 2]
    logits = jnp.full((6, k), -jnp.inf).at[:4, :2].set(a).at[4:, 2:].set(b)
    capacity = (2, 2, *([1] * (k - 2))) if k == 4 else (2, 2, 2)
    value = jnp.array([0, 1, 1, 0, 2, k - 1])
    left = matching_log_prob(a, value[:4], 2).value
    right = matching_log_prob(b, value[4:] - 2, 1).value if k == 4 else 0.0
    log_prob, error = matching_log_prob(logits, value, capacity)
    assert abs(log_prob - left - right) < 4 * error + 1e-5
    assert error < 0.05


def test_a_dead_end_does_not_count():
    """Datapoints that could go to another group, but for which none could come back, are where they must be."""
    logits = jnp.zeros((4, 4)).at[2:, :2].set(-jnp.inf)  # 2 and 3 must take experts 2 and 3, the rest is left
    log_prob, error = matching_log_prob(logits, jnp.array([0, 1, 2, 3]), 1)
    assert abs(log_prob - jnp.log(0.25)) < 4 * error + 1e-5


def test_outside_the_support():
    logits = jax.random.normal(jax.random.key(0), (4, 2))
    values = jnp.array([[0, 0, 0, 1], [0, 0, 1, 2], [-1, 0, 1, 1], [-1, -1, -1, -1], [0, 1, 0, 1]])

    def total(a):
        estimate = matching_log_prob(a, values, 2)
        return estimate.value.sum(), estimate

    gradient, (log_prob, error) = jax.grad(total, has_aux=True)(logits)
    np.testing.assert_array_equal(jnp.isneginf(log_prob), [True, True, True, True, False])
    assert (error[:4] == 0).all()
    assert jnp.isfinite(gradient).all()  # a sum in which any outcome's NaN would show
    d = GumbelMatching(logits, 2)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert jnp.isneginf(d.log_prob(values[0]))
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert jnp.isneginf(d.log_prob_with_error(jnp.array([0.5, 0, 1, 1])).value)


def test_nan_under_jit():
    value = jnp.array([0, 0, 1, 1])
    estimate = jax.jit(lambda a: matching_log_prob(a, value, 2))
    for bad in (jnp.nan, jnp.inf):
        log_prob, error = estimate(jnp.zeros((4, 2)).at[1, 0].set(bad))
        assert jnp.isnan(log_prob)
        assert jnp.isnan(error)


def test_size_zero():
    log_prob, error = matching_log_prob(jnp.zeros((0, 3)), jnp.zeros((0,), jnp.int32), 2)
    assert log_prob == 0
    assert error < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignment": jnp.zeros(4)}, "assignment must be integers"),
        ({"assignment": jnp.zeros(3, int)}, r"assignment must be integers of shape \(\.\.\., 4\)"),
        ({"num_draws": 0}, "num_draws must be a positive int"),
        ({"num_draws": 2.5}, "num_draws must be a positive int"),
        ({"target_error": 0.0}, "target_error must be finite and positive"),
        ({"target_error": float("nan")}, "target_error must be finite and positive"),
        ({"method": "newton"}, "method must be 'quadrature', 'sampling' or None, got 'newton'"),
        ({"capacity": 1}, "capacity has room for 2 datapoints"),
        ({"logits": jnp.full((4, 2), jnp.nan)}, "logits must not contain NaN"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"logits": jnp.zeros((4, 2)), "assignment": jnp.array([0, 0, 1, 1]), "capacity": 2, **change}
    with pytest.raises(ValueError, match=message):
        matching_log_prob(**arguments)
    kept = {name: arguments[name] for name in ("num_draws", "target_error", "method") if name in change}
    if kept:
        with pytest.raises(ValueError, match=message):
            GumbelMatching(arguments["logits"], 2, **kept)


def test_quadrature_is_for_few_experts():
    message = "method 'quadrature' is for at most 3 experts, got 4"
    with pytest.raises(ValueError, match=message):
        matching_log_prob(jnp.zeros((4, 4)), jnp.arange(4), 1, method="quadrature")
    with pytest.raises(ValueError, match=message):
        GumbelMatching(jnp.zeros((4, 4)), 1, method="quadrature")
    log_probs = [
        GumbelMatching(jnp.zeros((4, 2)), 2, method=m).log_prob(jnp.arange(4) % 2) for m in (None, "quadrature")
    ]
    assert log_probs[0] == log_probs[1]
