"""The command line: exit codes, files, the same bits from the same seed, one line for bad input."""

import json
import re

import numpy as np
import pytest
import xarray

from gumbel_moe.cli import main

SMALL = ["--n", "12", "--experts", "3", "--draws", "400", "--false-fail-rate", "1e-6"]


def diagnose(out, *more):
    return main(["diagnose", *SMALL, "--out", str(out), *more])


def test_an_unbiased_router_passes_and_its_report_is_whole(tmp_path, capsys):
    assert diagnose(tmp_path / "a", "--router", "skip", "--capacity", "4", "--seed", "3") == 0
    assert "PASSED" in capsys.readouterr().out
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["passed"] is True
    assert {"max_z", "detectable_bias", "false_fail_rate", "variance"} <= set(report)
    with xarray.open_datatree(tmp_path / "a" / "draws.nc") as draws:
        assert draws["posterior"]["gradient"].dims == ("chain", "draw", "parameter")
    page = (tmp_path / "a" / "report.html").read_text()
    pictures = re.findall(r'<img[^>]*src="([^"]*)"', page)
    assert len(pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_a_biased_router_exits_with_1(tmp_path, capsys):
    arguments = ("--router", "skip", "--estimator", "uncorrected", "--capacity", "2", "--draws", "3000")
    assert diagnose(tmp_path, *arguments) == 1
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False
    assert "PASSED" not in capsys.readouterr().out


@pytest.mark.parametrize("router", ["independent", "skip", pytest.param("gumbel-matching", marks=pytest.mark.slow)])
def test_sample(tmp_path, router):
    logits = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    arguments = ["sample", "--router", router, "--logits", str(tmp_path / "logits.npy"), "--capacity", "3"]
    for name in "ab":
        assert main([*arguments, "--draws", "5", "--seed", "1", "--out", str(tmp_path / f"{name}.npz")]) == 0
    with np.load(tmp_path / "a.npz") as first, np.load(tmp_path / "b.npz") as again:
        assert first.files == again.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], again[name])
        assert len(first["log_prob"]) == 5
        assert np.isfinite(first["log_prob"]).all()


@pytest.mark.parametrize(
    "content", ["missing", "pickled", "vector", "nan", "whole numbers", "garbage"], ids=lambda name: name
)
def test_bad_files_get_one_line(tmp_path, capsys, content):
    path = tmp_path / "logits.npy"
    if content == "garbage":
        path.write_bytes(b"\x93NUMPY\x01")
    elif content != "missing":
        array = {
            "pickled": np.array([{}], object),
            "vector": np.zeros(3),
            "nan": np.full((3, 2), np.nan),
            "whole numbers": np.zeros((3, 2), int),
        }[content]
        np.save(path, array, allow_pickle=True)
    out = tmp_path / "o.npz"
    code = main(["sample", "--router", "skip", "--logits", str(path), "--capacity", "2", "--out", str(out)])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert "\n" not in error
    assert "logits" in error
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["diagnose", "--router", "nobody", "--out", "x"],
        ["diagnose", "--router", "skip", "--n", "0", "--out", "x"],
        ["diagnose", "--router", "skip", "--capacity", "2.5", "--out", "x"],
        ["diagnose", "--router", "gumbel-matching", "--n", "64", "--experts", "8", "--capacity", "2", "--out", "x"],
        ["sample", "--router", "skip"],
        [],
    ],
)
def test_bad_arguments_exit_with_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys):
    for command in ("diagnose", "sample"):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "exit" in text
        assert f"gumbel-moe {command}" in text
