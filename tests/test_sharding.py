"""Inputs sharded over eight virtual devices, and `jax.shard_map`: the answer of one device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharding.py")


def run(*options):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    settings = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, env=settings, cwd=SCRIPT.parents[1], capture_output=True, text=True, check=False)


def test_core():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" same") == 4


@pytest.mark.slow
def test_every_function_in_every_way():
    done = run("--all")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_other_numbers_are_seen():
    done = run("--spoil", "9")
    assert done.returncode == 1
    assert "another answer" in done.stdout
