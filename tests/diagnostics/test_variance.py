"""`compare_variance` against covariances that are known, and its intervals against how often they cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy.stats import binom

from gumbel_moe.diagnostics import compare_variance
from gumbel_moe.diagnostics._spectrum import of_covariance, of_draws
from gumbel_moe.diagnostics._variance_table import interval, resampled_means
from tests.diagnostics.problems import estimator, toy

KEY = jax.random.key(0)
MIX = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
COVARIANCE = MIX.astype(np.float64) @ MIX.T


def normal(key):
    return {"a": (MIX @ jax.random.normal(key, (6,)) + 100).reshape(2, 3), "b": jnp.zeros(())}


def mean_of_four(key):
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.vmap(normal)(jax.random.split(key, 4)))


@pytest.fixture(scope="module")
def result():
    return compare_variance(
        {"normal": normal, "four": mean_of_four},
        KEY,
        draws=5000,
        reference="normal",
        cost={"normal": 2, "four": 8},
        attrs={"n": 3},
    )


def test_trace_and_spectrum(result):
    """20,000 normal draws: the trace is good to 1%, eigenvalues to a few; bounds of six standard errors."""
    table = result.summary
    trace = np.trace(COVARIANCE)
    error = np.sqrt(2 * np.sum(COVARIANCE**2) / 20_000)
    for name, part in (("normal", 1), ("four", 4)):
        assert table.trace[name] == pytest.approx(trace / part, abs=6 * error / part)
        exact = np.sort(np.append(np.linalg.eigvalsh(COVARIANCE), 0))[::-1] / part
        np.testing.assert_allclose(result.spectra[name].eigenvalues, exact, atol=6 * exact[0] * np.sqrt(2 / 20_000))
        assert table["rank"][name] == pytest.approx(trace**2 / np.sum(COVARIANCE**2), rel=0.05)
        assert table.top_share[name] == pytest.approx(exact[0] / exact.sum(), rel=0.05)
        assert table.trace_low[name] < table.trace[name] < table.trace_high[name]
        # The width of a normal interval, to a tenth.
        width = (table.trace_high[name] - table.trace_low[name]) / (2 * 1.96 * error / part)
        assert 0.8 < width < 1.25
        assert table.signal_to_noise[name] == pytest.approx(6e4 / (trace / part), rel=0.02)


def test_costs(result):
    table = result.summary
    assert table.relative["normal"] == table.relative_per_evaluation["normal"] == 1
    assert table.relative_low["four"] < 4 < table.relative_high["four"]
    assert table.relative_per_evaluation["four"] == pytest.approx(table.relative["four"] / 4)
    assert (table.seconds > 0).all()
    np.testing.assert_allclose(table.trace_x_seconds, table.trace * table.seconds)
    np.testing.assert_allclose(table.trace_x_evaluations, table.trace * [2, 8])
    speed = table.trace_x_seconds["normal"] / table.trace_x_seconds["four"]
    assert table.relative_per_second["four"] == pytest.approx(speed)
    text = str(result)
    assert "20,000 draws each; relative to normal, 95% intervals" in text
    assert "trace_x_evaluations" in text


def test_bias_and_mean_squared_error_where_the_exact_gradient_is_known():
    """A shrunk estimator varies less and is biased; it is marked, and shown last. False-fail rate 1e-6."""

    def shrunk(key):
        return jax.tree.map(lambda leaf: 0.9 * leaf, normal(key))

    exact = {"a": jnp.full((2, 3), 100.0), "b": jnp.zeros(())}
    result = compare_variance(
        {"shrunk": shrunk, "normal": normal}, KEY, draws=2000, exact=lambda: exact, groups={"first": "a", "none": "b"}
    )
    table = result.summary
    assert table.biased.tolist() == [True, False]
    assert table.trace["shrunk"] < table.trace["normal"]
    assert table.bias["shrunk"] == pytest.approx(10 * np.sqrt(6), rel=0.02)
    assert table.bias["normal"] < 0.3
    np.testing.assert_allclose(table.mse, table.trace + table.bias**2, rtol=1e-6)
    np.testing.assert_allclose(table.trace_first, table.trace, rtol=1e-6)
    assert (table.trace_none == 0).all()
    text = str(result)
    assert "BIASED: shrunk" in text
    columns = next(line for line in text.splitlines() if "normal" in line and "BIASED" not in line).split()
    assert columns.index("normal") < columns.index("shrunk")
    page = result.page()
    for said in ("variance of first</th>", "variance, over that of shrunk</th>", "mean squared error</th>", ">BIASED<"):
        assert said in page
    with pytest.raises(ValueError, match=r"groups\['router'\] must be paths to leaves, got 'router'; the leaves"):
        compare_variance({"normal": normal}, KEY, draws=4, groups={"router": "router"})
    with pytest.raises(ValueError, match="exact must have the structure of what estimate returns"):
        compare_variance({"normal": normal}, KEY, draws=4, exact=jnp.zeros(3))


def test_to_netcdf_and_back(result, tmp_path):
    path = tmp_path / "variance.nc"
    result.save(path)
    with xarray.open_datatree(path) as back:
        squared = back["posterior"]["squared_deviation"]
        assert squared.dims == ("chain", "draw", "estimator")
        mean = squared.sel(estimator="four").mean().item()
        assert mean == pytest.approx(result.summary.trace["four"], rel=1e-3)
        assert back["constant_data"]["eigenvalue"].shape == (2, 7)
        assert back.attrs["reference"] == "normal"
        assert back.attrs["n"] == 3


def test_picture(result, tmp_path):
    result.plot(tmp_path / "variance.png")
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")


def test_intervals_cover():
    """Of 400 intervals for 95%, between 92% and 98% cover: not so by chance for one seed in 200 at most, the bootstrap
    being right; half the width covers far less."""
    rng = np.random.default_rng(0)
    inside = narrow = 0
    for seed in range(400):
        draws = rng.exponential(size=1000)
        low, high = interval(resampled_means(draws, seed), 0.95)
        inside += low < 1 < high
        narrow += abs(draws.mean() - 1) < (high - low) / 4
    assert 368 <= inside <= 392
    assert narrow < 320
    assert binom.cdf(367, 400, 0.95) < 0.01


def test_spectrum_of_few_draws_of_many_coordinates():
    """Rank one plus noise: the effective rank comes out though there are more coordinates than draws."""
    rng = np.random.default_rng(0)
    scales = np.where(np.arange(2000) < 20, 5.0, 0.1)
    few = of_draws(rng.normal(size=(64, 2000)) * scales)
    exact = np.sum(scales**2) ** 2 / np.sum(scales**4)
    assert few.rank == pytest.approx(exact, rel=0.2)
    assert len(few.eigenvalues) == 63
    assert few.eigenvalues.sum() == pytest.approx(np.sum(scales**2), rel=0.1)
    draws = rng.normal(size=(300, 5)) * np.arange(1, 6)
    np.testing.assert_allclose(
        of_draws(draws).eigenvalues[:5], of_covariance(np.cov(draws.T), 300).eigenvalues, rtol=1e-10
    )
    assert of_draws(draws).rank == pytest.approx(of_covariance(np.cov(draws.T), 300).rank)


def test_many_coordinates():
    result = compare_variance({"noise": lambda key: jax.random.normal(key, (1000,))}, KEY, draws=100)
    assert result.summary.trace["noise"] == pytest.approx(1000, rel=0.02)
    assert len(result.spectra["noise"].eigenvalues) == 63
    assert result.summary["rank"]["noise"] == pytest.approx(1000, rel=0.2)
    assert not [name for name in result.summary if "evaluation" in name]


@pytest.mark.slow
def test_estimators_without_spread_or_with_broken_draws(tmp_path):
    broken = {
        "fixed": lambda key: jnp.ones(3),
        "normal": lambda key: jax.random.normal(key, (3,)),
        "broken": lambda key: jnp.where(jax.random.uniform(key) < 0.1, jnp.nan, jax.random.normal(key, (3,))),
    }
    result = compare_variance(broken, KEY, draws=100, reference="normal")
    table = result.summary
    assert table.trace["fixed"] == 0
    assert table.not_finite["fixed"] == table.not_finite["normal"] == 0
    assert np.isnan(table.trace["broken"])
    assert 10 < table.not_finite["broken"] < 80
    result.plot(tmp_path / "variance.png")
    result.data.to_netcdf(tmp_path / "variance.nc")


@pytest.mark.slow
def test_capacity_costs_variance():
    """The skip process has more variance than independent draws; an interval that is wrong is one in 40."""
    problem = toy()
    result = compare_variance(
        {name: estimator(problem, name) for name in ("independent", "skip")},
        KEY,
        draws=500,
        cost={"independent": 12, "skip": 12},
    )
    assert result.summary.relative_high["skip"] < 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimates": [normal]}, TypeError, "estimates must be a dict from names to functions, got list"),
        ({"estimates": {}}, ValueError, "estimates must have at least one name"),
        ({"estimates": {1: normal}}, ValueError, "estimates must have at least one name, all of them strings"),
        ({"estimates": {"a": 1}}, TypeError, "estimate must be a function of a key, got int"),
        (
            {"estimates": {"a": normal, "b": lambda key: jnp.ones(3)}},
            ValueError,
            "what b returns must have the structure",
        ),
        ({"reference": "c"}, ValueError, "reference must be one of a, got 'c'"),
        ({"cost": {"c": 1}}, ValueError, "cost must have the names of estimates, a, got c"),
        ({"cost": {"a": 0}}, ValueError, r"cost\['a'\] must be finite and positive, got 0"),
        ({"draws": 2}, ValueError, "draws must be at least 4, got 2"),
    ],
)
def test_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        compare_variance(**({"estimates": {"a": normal}, "key": KEY} | change))
