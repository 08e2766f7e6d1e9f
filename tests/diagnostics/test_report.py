"""The report: its table and ArviZ's, netCDF and back, pictures, and what it says."""

import re
import subprocess
import sys

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from gumbel_moe.diagnostics import check_unbiased
from tests.full_disk import full_disk

KEY = jax.random.key(0)


@jax.jit
def estimate(key):
    return {"weight": jax.random.normal(key, (2, 3)) + 1, "bias": jnp.zeros(1)}


EXACT = {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(1)}


@pytest.fixture(scope="module")
def report():
    attrs = {"estimator": "normal", "n": 4, "k": 2, "capacity": (3, 1), "seed": None, "corrected": True, "odd": {1: 2}}
    return check_unbiased(estimate, EXACT, KEY, draws=300, attrs=attrs)


@pytest.mark.smoke
def test_to_netcdf_and_back(report, tmp_path):
    path = tmp_path / "draws.nc"
    report.save(path)
    with xarray.open_datatree(path) as back:
        for group in ("posterior", "constant_data"):
            xarray.testing.assert_identical(back[group].to_dataset().load(), report.data[group].to_dataset())
        assert back["posterior"]["gradient"].dims == ("chain", "draw", "parameter")
        assert back["constant_data"]["exact"].sel(parameter="weight[1,2]") == 1
        attrs = back.attrs
    assert attrs["estimator"] == "normal"
    assert (attrs["n"], attrs["k"], attrs["draws"], attrs["chains"]) == (4, 2, 300, 4)
    assert attrs["capacity"].tolist() == [3, 1]
    assert attrs["corrected"] == attrs["passed"] == 1
    assert attrs["odd"] == "{1: 2}"
    assert "seed" not in attrs
    assert attrs["jax_version"] == jax.__version__
    assert attrs["false_fail_rate"] == 1e-6


def test_full_disk_leaves_the_older_draws(report, tmp_path):
    path = tmp_path / "draws.nc"
    path.write_text("old")
    with full_disk(5000), pytest.raises(OSError, match="File too large"):
        report.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["h5netcdf", "h5py"])
def test_saving_says_what_it_needs(package, report, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    needs = f"saving draws needs {package}: pip install 'gumbel_moe[diagnostics]'"
    with pytest.raises(ModuleNotFoundError, match=re.escape(needs)):
        report.save(tmp_path / "draws.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.smoke
def test_summary_agrees_with_arviz(report):
    mine = report.summary.iloc[1:]  # the bias has no spread
    data = report.data.sel(parameter=list(mine.index))
    table = arviz_stats.summary(data, var_names=["gradient"], round_to="none")
    np.testing.assert_allclose(mine["mean"], table["mean"].astype(float), rtol=1e-5)
    np.testing.assert_allclose(mine["sd"], table["sd"].astype(float), rtol=1e-3)
    np.testing.assert_allclose(mine["ess"], table["ess_bulk"].astype(float), rtol=1e-3)
    np.testing.assert_allclose(mine["r_hat"], table["r_hat"].astype(float), rtol=1e-3)
    np.testing.assert_allclose(mine["mcse"], table["mcse_mean"].astype(float), rtol=1e-3)
    np.testing.assert_allclose(mine["mcse"], mine["se"], rtol=0.25)
    assert (report.summary["ess"][1:] > 800).all()
    assert np.isnan(report.summary["ess"]["bias[0]"])


def test_what_it_says(report):
    text = str(report)
    assert text.startswith("PASSED: 1,200 draws of 7 coordinates")
    assert "fails with probability 1e-06" in text
    assert f"a bias of {report.detectable_bias:.3g} in any one coordinate" in text
    assert repr(report) == text
    failed = check_unbiased(estimate, jax.tree.map(lambda leaf: leaf - 1, EXACT), KEY, draws=300)
    assert str(failed).startswith("FAILED")
    assert "- bias in 7 of 7 coordinates, most clearly bias[0]: +1 with standard error 0" in str(failed)


@pytest.mark.parametrize("most", [3, 30])
def test_forest(report, tmp_path, most):
    figure = report.plot(tmp_path / "forest.png", most=most)
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes[0].get_yticklabels()) == min(most, 7)
    report.plot()


def test_forest_of_draws_that_are_not_finite(tmp_path):
    report = check_unbiased(lambda key: jax.random.normal(key, (3,)) * jnp.array([1, jnp.nan, 0]), jnp.zeros(3), KEY)
    report.plot(tmp_path / "forest.png")
    assert [path.name for path in tmp_path.iterdir()] == ["forest.png"]


def test_progress(capsys):
    check_unbiased(estimate, EXACT, KEY, draws=50, progress=True)
    assert "200/200" in capsys.readouterr().err


WITHOUT = """
import sys
import numpyro  # which has tqdm among its own needs
for name in ("matplotlib", "tqdm", "h5netcdf", "h5py"):
    sys.modules[name] = None
import jax
from gumbel_moe.diagnostics import check_unbiased
from tests.full_disk import full_disk
estimate = lambda key: jax.random.normal(key, (2,))
report = check_unbiased(estimate, jax.numpy.zeros(2), jax.random.key(0), draws=20)
assert report.passed, report
report.data
for call in (report.plot, lambda: check_unbiased(estimate, jax.numpy.zeros(2), jax.random.key(0), progress=True)):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""


@pytest.mark.slow
def test_without_the_extra():
    """Only pictures and progress bars miss it, in one line that says what to install."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "a picture needs matplotlib: pip install 'gumbel_moe[diagnostics]'",
        "progress=True needs tqdm: pip install 'gumbel_moe[diagnostics]'",
    ]
