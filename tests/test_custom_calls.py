"""The library of custom calls: there where it can be, and the package works without it."""

import os
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec

import jax
import pytest

from gumbel_moe import _custom_calls

needs_it = pytest.mark.skipif(not _custom_calls.AVAILABLE, reason="installed without the custom calls")


def test_it_is_there_where_a_compiler_is():
    if not shutil.which("g++") or os.environ.get("GUMBEL_MOE_COMPILED") == "0":
        pytest.skip("no C++ compiler here, or turned off")
    assert _custom_calls.AVAILABLE


@pytest.mark.parametrize("origin", [None, "missing.so", __file__])
def test_without_a_usable_library_it_is_not_available(monkeypatch, origin):
    spec = None if origin is None else ModuleSpec("_native", None, origin=origin)
    monkeypatch.setattr(_custom_calls, "find_spec", lambda name: spec)
    assert not _custom_calls._register()


@needs_it
@pytest.mark.parametrize("version", [(), (0, 2), (1, 0)])
def test_with_another_jax_than_at_installation_nothing_is_registered(monkeypatch, version):
    """JAX would register it and later refuse to compute anything."""

    def registered(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(jax.ffi, "register_ffi_target", registered)
    monkeypatch.setattr(_custom_calls, "_xla_ffi_version", lambda: version)
    assert not _custom_calls._register()


@needs_it
def test_with_a_library_that_lacks_a_call_nothing_is_registered(monkeypatch):
    """As that of an earlier version does, in an editable installation that was not built anew."""

    def registered(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(jax.ffi, "register_ffi_target", registered)
    monkeypatch.setattr(_custom_calls, "LOG_PROB_AND_SCORE", "gumbel_moe_not_there_f{bits}")
    assert not _custom_calls._register()


PROGRAM = """
import jax.numpy as jnp
from gumbel_moe import _custom_calls
from gumbel_moe.matching import solve_matching
print(_custom_calls.AVAILABLE, float(solve_matching(jnp.eye(4), 1).value))
"""


@needs_it
@pytest.mark.parametrize(("switch", "available"), [("1", True), ("0", False)])
def test_the_switch(switch, available):
    environment = {**os.environ, "GUMBEL_MOE_COMPILED": switch}
    run = [sys.executable, "-c", PROGRAM]
    out = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stdout
    assert out.split() == [str(available), "4.0"]
