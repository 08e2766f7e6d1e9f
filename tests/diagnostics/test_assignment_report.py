"""`assignment_report`: shares by hand, names in ArviZ, files, pictures, bad input."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from gumbel_moe.diagnostics import assignment_report

RNG = np.random.default_rng(0)
Z = RNG.integers(-3, 3, size=(2, 50, 5))


def test_shares_by_hand():
    report = assignment_report({"z": Z, "x": RNG.normal(size=(2, 50))}, "z", 3)
    expert = np.where(Z < 0, -1 - Z, Z).reshape(100, 5)
    for i in range(5):
        for j in range(3):
            assert report.membership[i, j] == pytest.approx(np.mean(expert[:, i] == j))
        for other in range(5):
            assert report.co_assignment[i, other] == pytest.approx(np.mean(expert[:, i] == expert[:, other]))
    assert (report.summary["expert"] == report.membership.argmax(axis=1)).all()
    assert (report.summary["entropy"] <= np.log(3) + 1e-6).all()
    assert "2 chains of 50 draws of 5 datapoints" in str(report)


def test_renumbering_the_experts_changes_no_pair():
    renumbered = assignment_report({"z": (np.where(Z < 0, -1 - Z, Z) + 1) % 3}, "z", 3)
    np.testing.assert_allclose(renumbered.co_assignment, assignment_report({"z": Z}, "z", 3).co_assignment)


def test_named_coordinates_survive_a_file(tmp_path):
    names = list("abcde")
    report = assignment_report({"z": Z}, "z", 3, datapoints=names, experts=["u", "v", "w"], attrs={"seed": 0})
    report.data.to_netcdf(tmp_path / "draws.nc")
    tree = xarray.open_datatree(tmp_path / "draws.nc")
    assert tree["posterior"]["z"].dims == ("chain", "draw", "datapoint")
    assert tree["constant_data"]["membership"].sel(datapoint="b", expert="v") == pytest.approx(report.membership[1, 1])
    assert tree["constant_data"]["co_assignment"].dims == ("datapoint", "other")


@pytest.mark.parametrize("site", ["membership", "co_assignment", "datapoint", "draw", "layer/z", "z"])
def test_any_name_of_a_site_survives_a_file(site, tmp_path):
    """Names that the report has itself, or that would be groups; two that become one; bfloat16; any attributes."""
    x = jnp.ones((2, 50, 3), jnp.bfloat16)
    attrs = {"none": None, "flag": True, "nested": {"a": None}, "ragged": [[1], [1, 2]], "mixed": [None, 1], 3: "three"}
    report = assignment_report({site: Z, "a/b": x, "a.b": 2 * x, "a.b_2": 3 * x}, site, 3, attrs=attrs)
    report.data.to_netcdf(tmp_path / "draws.nc")
    with xarray.open_datatree(tmp_path / "draws.nc") as tree:
        renamed = json.loads(tree.attrs["renamed"])
        assert renamed["a.b_3"] == "a/b"
        stored = {name: new for new, name in renamed.items()}.get(site, site)
        assert tree.attrs["site"] == site
        np.testing.assert_array_equal(tree["posterior"][stored], Z)
        assert tree["posterior"][stored].dims == ("chain", "draw", "datapoint")
        np.testing.assert_array_equal(tree["constant_data"]["membership"], report.membership)
        assert tree["constant_data"]["co_assignment"].dims == ("datapoint", "other")
        for name, value in {"a.b": 2, "a.b_2": 3, "a.b_3": 1}.items():
            assert (tree["posterior"][name] == value).all()
        assert (tree.attrs["flag"], tree.attrs["nested"], tree.attrs["3"]) == (1, "{'a': None}", "three")
        assert "none" not in tree.attrs


def test_picture(tmp_path):
    report = assignment_report({"z": Z}, "z", 3)
    report.plot(tmp_path / "pairs.png", groups=[0, 1, 0, 1, 1])
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")
    assert report.plot() is not None
    with pytest.raises(ValueError, match=r"groups must have shape \(5,\), got \(2,\)"):
        report.plot(groups=[0, 1])
    report.save(tmp_path / "pairs.html")
    assert "most frequent one" in (tmp_path / "pairs.html").read_text()


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ({"a": Z}, {}, r"site 'z' must be in samples, got \['a'\]"),
        ({"z": Z[0]}, {}, r"must be integers \(chains, draws, n\)"),
        ({"z": Z.astype(float)}, {}, r"must be integers \(chains, draws, n\), got float64"),
        ({"z": Z + 1}, {}, "must be between -3 and 2 for num_experts 3, got -2 to 3"),
        ({"z": Z}, {"datapoints": ["a"]}, "datapoints must be 5 names"),
        ({"z": Z}, {"experts": ["a"]}, "experts must be 3 names"),
    ],
)
def test_bad_input(samples, options, message):
    with pytest.raises(ValueError, match=message):
        assignment_report(samples, "z", 3, **options)
