"""The language model on a mesh of eight virtual devices computes what one device does, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gumbel_moe.routing import SkipRouter
from models.transformer import Groups, LanguageModel, Sizes, make_mesh

SCRIPT = Path(__file__).with_name("on_devices.py")


def run(*options):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    settings = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, env=settings, cwd=SCRIPT.parents[2], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_eight_devices_are_one():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": same") == 6


@pytest.mark.slow
def test_other_draws_are_seen():
    done = run("--spoil")
    assert done.returncode == 1
    assert "different" in done.stdout


def test_refusals():
    with pytest.raises(ValueError, match="needs 10000 devices"):
        make_mesh(100, 100)
    model = LanguageModel(jax.random.key(0), Sizes(layers=1, width=4, heads=1, experts=2, expert_width=4))
    tokens = jax.numpy.zeros((2, 3), int)
    with pytest.raises(ValueError, match="groups must divide the 6 datapoints, got 4"):
        jax.eval_shape(lambda: model(jax.random.key(1), tokens, SkipRouter(2), groups=Groups(4)))
