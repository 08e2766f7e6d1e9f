"""Numbers that JAX would narrow in silence: converted rightly, or refused by the name of the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe._arrays import as_array, as_floats
from gumbel_moe.distributions import GumbelMatching, SkipAssignment, matching_log_prob
from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.matching import exchange_distances, solve_matching
from gumbel_moe.routing import LossFreeRouter, SkipRouter, combine, dispatch

KEY = jax.random.key(0)
LOGITS = jnp.zeros((2, 2))
ROUTING = SkipRouter(2)(KEY, LOGITS)
WIDE = np.array([[1e300, 0.0], [0.0, 0.0]])
ZERO = np.array([2**32, 1])  # 0 and 1 where it wraps around


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32, np.uint32, int, object])
def test_integer_scores_keep_their_order(kind):
    limit = 2**31 - 1 if kind is np.int32 else 2**32 - 1
    largest, second = min(3_000_000_000, limit), min(2_000_000_000, limit)
    scores = [[largest, 1], [second, 0]]
    match = solve_matching(scores if kind is int else np.array(scores, kind), 1)
    assert match.assignment.tolist() == [0, 1]
    np.testing.assert_allclose(match.value, largest, rtol=1e-6)


def test_integers_beyond_64_bits():
    assert solve_matching([[3 * 10**20, 1], [2 * 10**20, 0]], 1).assignment.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"scores must fit in float32, .* got 1e\+60"):
        solve_matching([[10**60, 1], [0, 0]], 1)
    with jax.enable_x64(True):
        assert solve_matching([[10**60, 1], [0, 0]], 1).value == 1e60


REFUSED = {
    "scores": lambda: solve_matching(WIDE, 1),
    "scores ": lambda: solve_matching(-WIDE, 1),  # not forbidden: huge
    "logits": lambda: GumbelMatching(-WIDE, 1),
    "logits ": lambda: SkipRouter(1)(KEY, -WIDE),
    "assignment": lambda: exchange_distances(LOGITS, ZERO, 1),
    "assignment ": lambda: matching_log_prob(LOGITS, ZERO, 1),
    "value": lambda: GumbelMatching(LOGITS, 1, validate_args=False).log_prob(ZERO),
    "value ": lambda: SkipAssignment(LOGITS, 1, validate_args=False).importance_weights(ZERO),
    "losses": lambda: score_function_loss(ROUTING, np.array([1e300, 0])),
    "losses ": lambda: score_function_loss(ROUTING, np.array([2**40, 0])),
    "baseline": lambda: score_function_loss(ROUTING, jnp.zeros(2), 1e300),
    "all_losses": lambda: exact_loss(LOGITS, WIDE),
    "tokens": lambda: dispatch(np.array([2**40, 1]), ROUTING, 2),
    "buffers": lambda: combine(np.full((2, 2), 1e300), ROUTING),
    "bias": lambda: LossFreeRouter(2)(KEY, LOGITS, np.array([1e300, 0])),
    "mean": lambda: as_array("mean", np.longdouble("1e400")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"^{name.strip()} must fit in (float|int)32, .* jax_enable_x64 is off, got"):
        REFUSED[name]()


@pytest.mark.parametrize("capacity", [2**40, [2**40, 1], np.uint64(2**63), np.array([2**63, 1], np.uint64), 2**62])
def test_capacities_beyond_the_datapoints_are_all_alike(capacity):
    assert solve_matching([[1.0, 0.0], [2.0, 0.0]], capacity).assignment.tolist() == [0, 0]
    assert GumbelMatching(jnp.array([[9e3, 0.0]] * 2), capacity).sample(KEY).tolist() == [0, 0]


def test_what_is_kept():
    assert as_array("x", 1.5).weak_type
    assert not as_array("x", np.float64(1.5)).weak_type
    assert as_array("x", [np.inf, -np.inf, np.nan, 1e-300]).dtype == jnp.float32
    assert as_array("x", np.zeros(2, jnp.bfloat16)).dtype == jnp.bfloat16
    assert as_array("x", [jnp.ones(2), jnp.zeros(2)]).shape == (2, 2)
    assert as_floats("x", np.array([2**63], np.uint64)).tolist() == [2.0**63]
    assert jax.jit(lambda x: as_array("x", [x, 1.0]))(2.0).tolist() == [2.0, 1.0]
    for value in ("a", None, object(), ["1"]):
        with pytest.raises(TypeError, match=r"^x must be numbers, got dtype"):
            as_array("x", value)


def test_nothing_is_narrowed_in_float64():
    with jax.enable_x64(True):
        assert solve_matching(np.array([[2**53, 1], [2**53 - 1, 1]]), 1).assignment.tolist() == [0, 1]
        assert dispatch(np.array([2**40, 1]), ROUTING, 2).max() == 2**40
        assert np.isfinite(exact_loss(jnp.zeros((2, 2)), WIDE))
