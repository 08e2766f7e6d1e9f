"""The language model trained on other devices, by several processes, and through kills: processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from inference.language._curves import read_metrics, read_run
from inference.language._generate import load_state
from tests.inference.on_meshes import SIZES, TOLERANCE, write_text

ROOT = Path(__file__).parents[2]


def start(*command, devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    settings = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *map(str, command)], env=settings, cwd=ROOT, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("gumbel_matching", "--groups", "8"),
        ("gumbel_matching", "--score", "whole"),
        ("skip",),
        ("skip", "--groups", "8", "--draws", "2", "--student", "4"),
        ("switch", "--groups", "16"),
    ],
)
def test_a_run_may_change_its_devices(given, tmp_path):
    script = Path(__file__).with_name("on_meshes.py")
    process = start(script, tmp_path, *given, devices=8)
    told, _ = process.communicate()
    assert process.returncode == 0, told
    assert told.count(" apart") == 3


def trained(folder):
    """Metrics without times, and the last state."""
    run = read_run(folder)
    state = load_state(run.settings, folder)
    assert state is not None
    lines = [{name: x for name, x in line.items() if "second" not in name} for line in read_metrics(folder)]
    return lines, jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def start_pair(given, folder):
    """Two processes of two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    several = ["--mesh", "data=2,expert=2", "--coordinator", f"localhost:{port}", "--num-processes", "2"]
    return [start(*given, "--out", folder, *several, "--process-id", number, devices=2) for number in range(2)]


def given_flags(folder, router, steps, *more):
    text = write_text(folder / "text")
    given = ["-m", "inference.language", "train", "--router", router, "--corpus", text, *SIZES.split()]
    return [*given, "--steps", steps, "--every", steps // 2, *more]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    given = given_flags(tmp_path, "gumbel_matching", 10, "--groups", "4")
    alone = start(*given, "--out", tmp_path / "one", devices=1)
    told, _ = alone.communicate()
    assert alone.returncode == 0, told
    pair = start_pair(given, tmp_path / "two")
    told = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    assert "bits per byte" in told[0]
    assert "bits per byte" not in told[1]
    (one, first), (two, second) = trained(tmp_path / "one"), trained(tmp_path / "two")
    assert len(two) == 10
    for line, other in zip(one, two, strict=True):
        assert line == pytest.approx(other, abs=TOLERANCE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), first, second)
    assert (tmp_path / "two" / "checkpoints" / "10" / "checksums.json").exists()


@pytest.mark.slow
def test_processes_end_together(tmp_path):
    """One of them is told to."""
    folder = tmp_path / "run"
    pair = start_pair(given_flags(tmp_path, "switch", 10**6), folder)
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and all(process.poll() is None for process in pair):
        time.sleep(0.1)
    pair[1].send_signal(signal.SIGTERM)
    told = [process.communicate()[0] for process in pair]
    assert [process.returncode for process in pair] == [128 + signal.SIGTERM] * 2, told
    lines, state = trained(folder)
    assert lines[-1]["step"] == state.step
    assert sum("SIGTERM: saved" in each for each in told) == 1
