"""`gumbel-moe check`: a user's own function, what it may return, and what is said of anything else."""

import json
import sys

import numpy as np
import pytest
import xarray

from gumbel_moe.cli import main

# The gradient in the logits of three coins, of the expected sum of what they show.
COINS = """
import jax
import jax.numpy as jnp

p = jnp.array([0.2, 0.5, 0.7])

@jax.jit
def right(key):
    b = jax.random.bernoulli(key, p).astype(p.dtype)
    return b.sum() * (b - p)

@jax.jit
def wrong(key):
    return right(key) + 0.2

class Problems:
    @staticmethod
    def one(): return right, p * (1 - p)

def computed(): return wrong, lambda: p * (1 - p)
def several(): return {"right": right, "wrong": wrong}, p * (1 - p)
def pair(): return (right, wrong), None
def pairs(): return {"same": (right, right), "other": (right, wrong)}, None

def estimate(key): return right(key)
def alone(): return right
def no_pair(): return right, None
def numbers(): return {1: right}, p
def no_function(): return {"right": p}, p
def shapes(): return right, jnp.zeros(2)
def words(): return (lambda key: "x"), p
def whole(): return (lambda key: jnp.arange(3)), p
def fails(): return {"mine": lambda key: right(key) + unknown}, p
constant = 3
"""
DRAWS = ["--draws", "500"]


@pytest.fixture
def coins(tmp_path, monkeypatch):
    """A working directory with the module `coins`, imported anew by every test."""
    (tmp_path / "coins.py").write_text(COINS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "coins", raising=False)
    yield tmp_path
    sys.modules.pop("coins", None)


def test_verdicts(coins, capsys):
    """False-fail rate: 1e-6 for each of what is right; a bias of 0.2 is beyond what is detectable, 0.14."""
    assert main(["check", "coins:Problems.one", *DRAWS]) == 0
    assert capsys.readouterr().out.startswith("PASSED: 2,000 draws of 3 coordinates")
    assert main(["check", "coins:computed", *DRAWS]) == 1
    assert main(["check", "coins:pair", *DRAWS]) == 1
    capsys.readouterr()
    assert main(["check", "coins:pairs", *DRAWS]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED: other; 2,000 draws of 3 coordinates each")
    assert sorted(path.name for path in coins.iterdir() if path.suffix) == ["coins.py"]


def test_report(coins):
    assert main(["check", "coins:several", *DRAWS, "--out", "report", "--seed", "1"]) == 1
    numbers = json.loads((coins / "report" / "report.json").read_text())
    assert numbers["passed"] is False
    assert {name: one["passed"] for name, one in numbers["estimators"].items()} == {"right": True, "wrong": False}
    assert numbers["arguments"]["target"] == "coins:several"
    page = (coins / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "wrong: bias in 3 of 3 coordinates" in page
    tree = xarray.open_datatree(coins / "report" / "draws.nc", engine="h5netcdf")
    assert tree["posterior"]["gradient"].shape == (4, 500, 2, 3)
    assert tree["constant_data"]["passed"].to_numpy().tolist() == [1, 0]
    np.testing.assert_allclose(tree["constant_data"]["exact"], [0.16, 0.25, 0.21], rtol=1e-6)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:problem", "there is no module nowhere, neither in "),
        ("coins.deeper:problem", "there is no module coins.deeper, neither in "),
        ("coins:severl", "coins has no severl; did you mean several?"),
        ("coins:Problems.two", "coins has no two"),
        ("coins:constant", "coins:constant is no function but int"),
        ("coins:estimate", "coins:estimate must take no arguments, got estimate(key); it returns a pair (estimate,"),
        ("coins:alone", "must return a pair (estimate, exact): a function from a JAX key to gradients"),
        ("coins:no_pair", "must return a pair of functions where the exact gradient is None, got PjitFunction"),
        ("coins:numbers", "must name each estimator by a string, got [1]"),
        ("coins:no_function", "must return a function of a key as the estimate of 'right', got ArrayImpl"),
        ("coins:shapes", "returned what cannot be tested: exact must have the shapes of what estimate returns"),
        ("coins:words", "returned what cannot be tested: "),
        ("coins:whole", "returned what cannot be tested: "),
        ("coins.py:several", "coins.py is a file, name its module: coins:several"),
        ("coins", "must be a module and a function in it, such as coins:problem, got 'coins'"),
        ("coins:", "must be a module and a function in it"),
    ],
)
def test_what_cannot_be_tested_is_one_line(target, said, coins, capsys):
    assert main(["check", target]) == 2
    err = capsys.readouterr().err
    assert err.startswith("gumbel-moe check: error: argument MODULE:FUNCTION: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_module_that_needs_another(coins, capsys):
    (coins / "coins.py").write_text("import nowhere.else_\n")
    assert main(["check", "coins:problem"]) == 2
    assert "coins imports nowhere, which is not there" in capsys.readouterr().err


def test_errors_of_the_users_code_keep_their_traceback(coins, capsys):
    """Also where they are of the kinds that bad arguments raise."""
    (coins / "coins.py").write_text(f"{COINS}\ndef wild(): raise ValueError('of mine')\n")
    for target, said in [("coins:wild", "ValueError: of mine"), ("coins:fails", "name 'unknown' is not defined")]:
        assert main(["check", target]) == 3
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert said in err
