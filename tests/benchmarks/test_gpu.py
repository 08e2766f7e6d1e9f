"""The program for a GPU, rehearsed on a CPU: what it writes, and that every check can fail."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu, gpu_checks, gpu_timings
from gumbel_moe.distributions import Estimate
from gumbel_moe.routing import SkipRouter

QUICK = ("noise", "dispatch and combine", "router skip")
N, K = 12, 3


def run(path, *arguments):
    """Exit status, and what was written."""
    status = gpu.main(["--small", "--out", str(path), *arguments])
    return status, json.loads(path.read_text())


def few_programs(monkeypatch, extra=None):
    every = gpu_timings.programs

    def programs(*arguments):
        return {name: program for name, program in every(*arguments).items() if name in QUICK} | (extra or {})

    monkeypatch.setattr(gpu_timings, "programs", programs)


@pytest.mark.slow
def test_small_run(tmp_path, monkeypatch):
    """All checks but the one that is long to compile, and some programs. Weights are tested at the report's own
    false-fail rate, 1e-6 for each router; nothing else is left to chance.
    """
    without = gpu.SMALL._replace(cases=gpu.SMALL.cases._replace(log_prob=()))
    monkeypatch.setattr(gpu, "SMALL", without)
    few_programs(monkeypatch)
    status, table = run(tmp_path / "gpu.json")
    assert (status, table["passed"], table["finished"]) == (0, True, True)
    assert {"device", "platform", "jax", "jaxlib", "gumbel_moe", "default_matmul_precision"} <= set(table["machine"])
    assert table["settings"] == {"seed": 0, "small": True, "seconds": 220}
    assert {row["check"] for row in table["checks"]} == {
        "optimum against SciPy",
        "optimum against CPU",
        "conditionals of a draw against CPU",
        "weights of a draw against CPU",
        "weights",
    }
    assert {row["router"] for row in table["checks"] if "router" in row} == {"independent", "skip", "gumbel_matching"}
    assert sorted(row["program"] for row in table["timings"]) == sorted(QUICK)
    assert all(0 < row["least_seconds"] <= row["seconds"] for row in table["timings"])


def test_out_of_time(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_checks, "checks", lambda *_: ())
    few_programs(monkeypatch)
    status, table = run(tmp_path / "gpu.json", "--seconds", "0")
    assert status == 0
    assert [row["skipped"] for row in table["timings"]] == ["out of time"] * len(QUICK)


def test_failures_are_written_and_told_by_the_exit_status(tmp_path, monkeypatch, capsys):
    """A wrong number, one that JSON has not, and programs that raise before and while they run."""

    def raises(*_):
        raise RuntimeError("broken kernel")

    def while_running(x):
        return jax.pure_callback(raises, x, x)

    rows = [{"check": "optimum", "gap": float("nan"), "passed": False}]
    monkeypatch.setattr(gpu_checks, "checks", lambda *_: {"optimum": lambda: rows, "raises": raises}.items())
    broken = {name: gpu_timings.Program(f, (1.0,)) for name, f in {"early": raises, "late": while_running}.items()}
    few_programs(monkeypatch, broken)
    status, table = run(tmp_path / "gpu.json")
    assert (status, table["passed"], table["finished"]) == (1, False, True)
    failed = {row.get("check", row.get("program")): row for row in [*table["checks"], *table["timings"]]}
    assert failed["optimum"]["gap"] == "nan"
    for name in ("raises", "early", "late"):
        assert not failed[name]["passed"]
        assert "broken kernel" in failed[name]["error"]
    assert "seconds" in failed["noise"]
    assert capsys.readouterr().err.count("failed: {") == 4


def changed(field, by):
    """`solve_matching` with one of its results off."""
    right = gpu_checks.solve_matching

    def solve(scores, capacity):
        match = right(scores, capacity)
        return match._replace(**{field: by(getattr(match, field))})

    return solve


@pytest.mark.parametrize(
    ("field", "by"),
    [
        ("assignment", lambda z: z[::-1]),
        ("assignment", lambda z: 0 * z),
        ("value", lambda value: 1.0001 * value + 0.001),
        ("gap", lambda gap: gap + 0.01),
        ("gap", lambda gap: gap * float("nan")),
    ],
    ids=["another assignment", "too many", "value", "gap", "NaN"],
)
def test_a_wrong_optimum_is_found(field, by, monkeypatch):
    monkeypatch.setattr(gpu_checks, "solve_matching", changed(field, by))
    assert not any(row["passed"] for row in gpu_checks.optimum(N, K, 0, "SciPy"))


def off_on_cpu(by, function, *arguments):
    """What the function returns, the first or last array moved."""
    first, last = function(*arguments)
    return (first, last + by) if by else (1 - first, last)


@pytest.mark.parametrize("by", [2e-3, 0])
def test_a_draw_that_differs_is_found(by, monkeypatch):
    """Logarithms as far off as TF32 makes them; and another assignment."""
    monkeypatch.setattr(gpu_checks, "on_cpu", partial(off_on_cpu, by))
    assert not any(row["passed"] for row in gpu_checks.draw("conditionals", N, K, 0))


@pytest.mark.parametrize(("off", "passed"), [(0.004, True), (0.03, False), (float("nan"), False)])
def test_a_log_prob_that_differs_is_found(off, passed, monkeypatch):
    """Five errors of both estimates together are allowed; that of each is 0.001 here, and nothing else is computed."""

    class Known:
        def __init__(self, *_, **__):
            pass

        def log_prob_with_error(self, _):
            return Estimate(jnp.float32(-7.0), jnp.float32(0.001))

    def moved(function, *arguments):
        value, error = function(*arguments)
        return value + off, error

    monkeypatch.setattr(gpu_checks, "GumbelMatching", Known)
    monkeypatch.setattr(gpu_checks, "on_cpu", moved)
    (row,) = gpu_checks.log_prob(N, K, 0)
    assert row["passed"] == passed


def test_left_out_weights_are_found():
    (row,) = gpu_checks.weights("skip", SkipRouter(N // K // 2, corrected=False), N, K, 0, 500)
    assert not row["passed"]


@pytest.mark.slow
def test_every_program_runs(tmp_path):
    status, table = run(tmp_path / "gpu.json", "--seconds", "1000")
    assert status == 0
    assert "log_prob against CPU" in {row["check"] for row in table["checks"]}
    assert len(table["timings"]) == 17
    assert all(row["seconds"] > 0 for row in table["timings"])
