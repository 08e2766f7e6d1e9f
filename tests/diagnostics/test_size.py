"""Time and memory of the check of a real model, by the benchmark's own measurement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(draws):
    command = [sys.executable, "-m", "benchmarks.diagnostics", "--case", "digits_skip", "--draws", str(draws)]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_ten_times_the_draws_take_the_same_memory():
    """All draws of all coordinates would be 132 MiB more; what is kept of them is 3, and a process has its moods.

    That a minute is enough for 10,000 draws is asked for on two cores that have nothing else to do.
    """
    few, many = measured(1_000), measured(10_000)
    assert few["passed"]
    assert many["passed"]
    assert many["peak_mib"] < few["peak_mib"] + 80
    assert many["seconds"] < 60
