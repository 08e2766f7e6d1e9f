"""The command as a process, and what its help says."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from gumbel_moe import __version__
from gumbel_moe.cli import main


def test_console_script_is_the_function():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    module, name = tomllib.loads(text)["project"]["scripts"]["gumbel-moe"].split(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize("command", [[], ["diagnose"], ["check"], ["sample"]])
def test_help_teaches(command, capsys):
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert any(f"gumbel-moe {start}" in out for start in ("sample --router", "diagnose --router", "check coins:"))
    assert "exit codes" in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gumbel_moe {__version__}\n"


def test_process_passes_the_exit_code_on(tmp_path):
    """`/dev/stdout` is refused even where it leads to a file: that would be replaced under what prints to it."""
    np.save(tmp_path / "logits.npy", np.zeros((2, 2)))
    command = [sys.executable, "-m", "gumbel_moe", "sample", "--router", "skip", "--logits", "logits.npy"]
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run([*command, "--out", "/dev/stdout"], cwd=tmp_path, stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 2
    said = b"gumbel-moe sample: error: argument --out: /dev/stdout is where this program prints its output\n"
    assert done.stderr == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logits.npy", "out"]


UNHURRIED = {"jax", "numpyro", "arviz_base", "arviz_stats", "xarray", "pandas", "scipy", "matplotlib"}


def test_arguments_do_not_wait_for_jax(tmp_path):
    """Nor for what else takes seconds to import: help, the version, and whatever is wrong with what was given."""
    np.save(tmp_path / "logits.npy", np.zeros((6, 3)))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "report.html").touch()
    np.save(tmp_path / "nan.npy", np.full((6, 3), np.nan))
    sample = ["sample", "--router", "skip", "--out", "x", "--logits"]
    diagnose = ["diagnose", "--router", "skip", "--out", "x"]
    lines = [
        ["--help"],
        ["sample", "--help"],
        ["--version"],
        ["sample", "--n", "x"],
        [*sample, "nowhere.npy"],
        [*sample, "nan.npy"],
        [*sample, "logits.npy", "--capacity", "1,1"],
        [*sample, "logits.npy", "--capacity", "1", "--router", "gumbel-matching"],
        [*sample, "logits.npy", "--out", "logits.npy"],
        [*sample, "logits.npy", "--draws", "1000000000"],
        [*diagnose, "--scale", "1e300"],
        [*diagnose, "--capacity", "3,3"],
        [*diagnose, "--router", "base", "--estimator", "uncorrected"],
        [*diagnose, "--n", "100000", "--experts", "1000"],
        [*diagnose, "--out", "logits.npy"],
        [*diagnose, "--logits", "nan.npy"],
        [*diagnose, "--out", "there"],
        ["check", "coins.py:problem"],
        ["check", "coins"],
        ["check", "nowhere:problem"],
        ["check", "nowhere:problem", "--out", "there"],
    ]
    code = f"""
import sys
from gumbel_moe.cli import main
for line in {lines}:
    assert main(line) == (0 if line[-1] in ("--help", "--version") else 2), line
    late = {UNHURRIED} & set(sys.modules)
    assert not late, (line, late)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_look_for_slow_packages_finds_them():
    """The library itself imports them all but one, which pictures need."""
    import gumbel_moe.diagnostics  # noqa: F401

    assert {"matplotlib"} >= UNHURRIED - set(sys.modules)
