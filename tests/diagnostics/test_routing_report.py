"""`routing_report` on every router, against what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from gumbel_moe.diagnostics import routing_report
from gumbel_moe.diagnostics.pictures import draw_weights
from gumbel_moe.routing import (
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    QuantileBalancingRouter,
    SkipRouter,
    SwitchRouter,
)
from tests.routing import routers

KEY = jax.random.key(2)
LOGITS = routers.logits()


@pytest.mark.parametrize(
    "router",
    [IndependentRouter(), SkipRouter(2), pytest.param(GumbelMatchingRouter(4), marks=pytest.mark.slow)],
    ids=str,
)
def test_weighted_draws(router):
    """False-fail rate 1e-6 each."""
    report = routing_report(router, LOGITS, KEY, draws=3000)
    assert report.unbiased, str(report)
    assert "weights unbiased" in str(report)
    np.testing.assert_allclose(report.summary["weighted"], report.summary["p"], atol=0.03)
    np.testing.assert_allclose(report.summary["p"], routers.softmax(LOGITS).mean(axis=0), rtol=1e-5)
    assert report.weight_histogram["count"].sum() == pytest.approx(3000 * 8 * (1 - report.skipped))


@pytest.mark.parametrize("name", [*routers.TOP_ONE, "skip_uncorrected"])
def test_all_others_are_found_biased(name):
    all_routers = routers.TOP_ONE | {"skip_uncorrected": SkipRouter(2, corrected=False)}
    report = routing_report(all_routers[name], LOGITS, KEY, draws=1000)
    assert not report.unbiased
    assert "BIASED" in str(report)


def test_what_is_counted():
    """A router that says what it does: weights, loads and all else by hand."""
    logits = jnp.log(jnp.array([[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.25, 0.75]]))

    def three_at_the_first(key, logits):
        routing = SwitchRouter(4)(key, logits)
        kept = jnp.array([True, True, True, False])
        return routing._replace(
            expert=jnp.array([0, 0, 0, 1]), kept=kept, weight=jnp.where(kept, jnp.array([1.0, 1.0, 4.0, 9.0]), 0.0)
        )

    report = routing_report(three_at_the_first, logits, KEY, draws=20)
    assert report.skipped == 0.25
    assert report.max_violation == 1
    assert report.max_violation_sent == 0.5
    assert report.effective_fraction == pytest.approx(36 / (4 * 18))
    assert report.max_weight == 4
    assert report.largest_share == pytest.approx(4 / 6)
    assert report.summary["sent"].tolist() == [3, 1]
    assert report.summary["load"].tolist() == report.summary["load_50%"].tolist() == [3, 0]
    assert report.entropy == pytest.approx((np.log(2) - 0.25 * np.log(0.25) - 0.75 * np.log(0.75)) / 2)
    assert report.entropy_of_mean == pytest.approx(-0.375 * np.log(0.375) - 0.625 * np.log(0.625))
    counts = report.weight_histogram.query("count > 0")
    assert counts["count"].tolist() == [40, 20]
    assert ((counts["low"] < [1, 4]) & (counts["high"] > [1, 4])).all()
    np.testing.assert_allclose(report.marginals.mean, [[1, 0], [1, 0], [4, 0], [0, 0]])


def test_what_is_counted_of_several_experts():
    """Pairs of a datapoint and an expert are sent and skipped; a datapoint's weights count together."""
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]] * 2 + [[0.25, 0.5, 0.25]] * 2))

    def two_each(key, logits):
        routing = SwitchRouter(4, experts_per_datapoint=2)(key, logits)
        kept = jnp.array([[True, True], [True, False], [True, True], [False, True]])
        weight = jnp.array([[1.0, 2.0], [3.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
        return routing._replace(expert=jnp.array([[0, 1], [0, 2], [0, 1], [1, 2]]), kept=kept, weight=weight)

    report = routing_report(two_each, logits, KEY, draws=20)
    assert report.skipped == 0.25
    assert report.summary["sent"].tolist() == [3, 3, 2]
    assert report.summary["load"].tolist() == [3, 2, 1]
    assert report.max_violation == pytest.approx(3 / 2 - 1)
    assert report.effective_fraction == pytest.approx(8**2 / (4 * (9 + 9 + 1 + 1)))
    assert report.max_weight == 3
    assert report.largest_share == pytest.approx(3 / 8)
    assert report.weight_histogram["count"].sum() == 20 * 6
    np.testing.assert_allclose(report.marginals.mean, [[1, 2, 0], [3, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])


@pytest.mark.parametrize("corrected", [True, False])
def test_several_experts(corrected):
    """False-fail rate 1e-6."""
    report = routing_report(SkipRouter(4, corrected=corrected, experts_per_datapoint=2), LOGITS, KEY, draws=1000)
    assert report.unbiased == corrected


def test_a_matching_without_weights():
    report = routing_report(GumbelMatchingRouter((3, 3, 2), corrected=False), LOGITS, KEY, draws=1000)
    assert not report.unbiased
    assert report.skipped == 0
    assert report.summary["load"].tolist() == [3, 3, 2]
    assert report.max_violation == pytest.approx(3 / (8 / 3) - 1)


def test_rare_pairs_are_not_called_biased():
    """Most pairs have a probability far below one in all draws; false-fail rate 1e-6 each."""
    for seed in range(2):
        logits = 6 * jax.random.normal(jax.random.key(seed), (64, 8))
        assert routing_report(IndependentRouter(), logits, jax.random.key(seed), draws=300).unbiased
        assert not routing_report(SkipRouter(2, corrected=False), logits, KEY, draws=300).unbiased


def test_forbidden_experts():
    report = routing_report(SkipRouter(3), routers.forbidding(), KEY, draws=2000)
    assert report.unbiased
    assert np.isfinite(report.entropy)


@pytest.mark.slow
def test_infeasible_logits():
    with pytest.raises(ValueError, match="no feasible assignment"):
        routing_report(GumbelMatchingRouter(4), jnp.array([[0.0, -jnp.inf]] * 8), KEY, draws=10)


@pytest.mark.slow
def test_in_float64():
    with jax.enable_x64(True):
        assert routing_report(SkipRouter(2), routers.logits(), KEY, draws=500).unbiased


def test_a_state_can_be_given():
    router = QuantileBalancingRouter(8)
    bias = jnp.array([-9.0, 0.0, 0.0])
    moved = routing_report(lambda key, logits: router(key, logits, bias), LOGITS, KEY, draws=10)
    assert moved.summary["sent"][0] == 0 < routing_report(router, LOGITS, KEY, draws=10).summary["sent"][0]


@pytest.mark.smoke
def test_to_netcdf_and_back(tmp_path):
    report = routing_report(SkipRouter(2), LOGITS, KEY, draws=50, attrs={"capacity": 2})
    report.save(tmp_path / "routing.nc")
    with xarray.open_datatree(tmp_path / "routing.nc") as back:
        assert back["posterior"]["load"].dims == ("chain", "draw", "expert")
        xarray.testing.assert_identical(back["constant_data"].to_dataset(), report.data["constant_data"].to_dataset())
        assert back.attrs["capacity"] == 2
        assert back.attrs["router"] == "SkipRouter(capacity=2, corrected=True, floor=0.0)"


def test_pictures(tmp_path):
    reports = {str(c): routing_report(SkipRouter(c), LOGITS, KEY, draws=50) for c in (1, 4)}
    reports["1"].plot(tmp_path / "routing.png")
    draw_weights(reports, tmp_path / "weights.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["routing.png", "weights.png"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"router": ExpertChoiceRouter(2)}, TypeError, "router must return a Routing with .* got ExpertChoiceRouting"),
        ({"router": 3}, TypeError, "router must be a function of a key and logits, got int"),
        ({"router": SkipRouter((1, 2))}, ValueError, "capacity must be an int or"),
        ({"router": GumbelMatchingRouter(1)}, ValueError, "capacity has room for 3"),
        ({"logits": jnp.zeros(3)}, ValueError, "logits must have shape"),
        ({"logits": jnp.zeros((0, 3))}, ValueError, "logits must have at least one datapoint"),
        ({"logits": jnp.full((2, 2), jnp.nan)}, ValueError, "logits must not contain NaN"),
        ({"draws": 1}, ValueError, "draws must be at least 2, got 1"),
        ({"false_fail_rate": 2}, ValueError, "false_fail_rate must be between 0 and 1, got 2"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        routing_report(**({"router": SkipRouter(2), "logits": LOGITS, "key": KEY} | change))


def test_datapoints_that_are_left_out_count_nowhere():
    mask = np.arange(LOGITS.shape[0]) != 1
    report = routing_report(SkipRouter(2), LOGITS.at[1].set(jnp.nan), KEY, draws=2000, mask=mask)
    assert report.unbiased
    assert report.datapoint.tolist() == np.flatnonzero(mask).tolist()
    assert report.p.shape == (mask.sum(), LOGITS.shape[1])
    np.testing.assert_array_equal(report.seen.demand.sum(axis=1), mask.sum())
    np.testing.assert_allclose(report.seen.skipped, 1 - report.seen.load.sum(axis=1) / mask.sum(), atol=1e-6)
    assert report.weight_histogram["count"].sum() == report.seen.load.sum()
    with pytest.raises(ValueError, match="at least one datapoint that takes part"):
        routing_report(SkipRouter(2), LOGITS, KEY, mask=np.zeros(LOGITS.shape[0], bool))
