"""`import gumbel_moe`: what it says of itself, what it loads, and when."""

import pydoc
import re
import subprocess
import sys

import pytest

import gumbel_moe
from gumbel_moe.matching import _compiled

ROOMS = ["cli", "diagnostics", "distributions", "estimators", "matching", "mcmc", "routing"]

LATE = """
import sys
import gumbel_moe
assert "jax" not in sys.modules
import jax, numpyro
before = set(sys.modules)
gumbel_moe.routing.SkipRouter, gumbel_moe.estimators, gumbel_moe.mcmc, gumbel_moe.compiled_solver_available()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
import gumbel_moe.diagnostics
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_rooms_come_when_they_are_used():
    """All but the diagnostics need nothing beside JAX and NumPyro; these show that the look would see it."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    early, late = (set(line.split()) for line in done.stdout.splitlines())
    foreign = {"arviz_base", "arviz_stats", "pandas", "xarray", "matplotlib"}
    assert early & (foreign | {"scipy"}) == set()
    assert {"arviz_base", "arviz_stats", "pandas", "xarray"} <= late


def test_help_says_what_there_is():
    text = pydoc.plain(pydoc.render_doc(gumbel_moe))
    for room in ROOMS:
        assert f"- `gumbel_moe.{room}`:" in text
    for name in ("solve_matching", "SkipAssignment", "swap_and_move", "make_router", "score_function_loss"):
        assert name in text


def test_names():
    assert set(ROOMS) < set(dir(gumbel_moe))
    assert gumbel_moe.compiled_solver_available() is _compiled.AVAILABLE
    with pytest.raises(AttributeError, match="module 'gumbel_moe' has no attribute 'router'"):
        gumbel_moe.router  # noqa: B018


def test_names_that_help_tells_of_are_there():
    """Every name in backticks, but methods and what is NumPyro's."""
    named = re.findall(r"`(\w+)`", gumbel_moe.__doc__ or "")
    known = {name for room in ROOMS for name in getattr(gumbel_moe, room).__all__}
    assert set(named) - known <= {"sample", "log_prob", "HMCGibbs"}
    assert len(named) > 15
