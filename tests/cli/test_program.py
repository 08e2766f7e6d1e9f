"""The command as a process, and what its help says."""

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from gumbel_moe import __version__
from gumbel_moe.cli import main


def test_console_script_is_the_function():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    module, name = tomllib.loads(text)["project"]["scripts"]["gumbel-moe"].split(":")
    assert getattr(import_module(module), name) is main


@pytest.mark.parametrize("command", [[], ["diagnose"], ["sample"]])
def test_help_teaches(command, capsys):
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "example" in out
    assert "gumbel-moe sample --router" in out or "gumbel-moe diagnose --router" in out
    assert "exit codes" in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gumbel_moe {__version__}\n"


def test_process_passes_the_exit_code_on():
    command = [sys.executable, "-m", "gumbel_moe", "diagnose", "--router", "skip", "--n", "0", "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_help_does_not_wait_for_jax():
    code = "import sys; from gumbel_moe.cli import main; main(['--help']); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
