"""The comparison from end to end on tiny settings: files, rows, repeatability, interruption, bad arguments."""

import json
import subprocess
import sys

import numpy as np
import pytest

from inference.compare import _program as compare
from inference.shared.machine import COMPILER
from inference.training.methods import ESTIMATOR_METHODS, ROUTER_METHODS

KEYS = {"data", "router", "starts", "steps", "true_loss_median", "own_loss_median", "skipped", "max_load"}
TINY = ["--starts", "2", "--steps", "5"]


def run(folder, *arguments):
    code = compare.main([*TINY, "--out", str(folder), *arguments])
    return code, json.loads((folder / "results.json").read_text())


def without_times(row):
    return {name: value for name, value in row.items() if not name.endswith("_seconds")}


@pytest.fixture(scope="module", autouse=True)
def quick_compiler():
    """These tests compile much and train little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(COMPILER, "xla_backend_optimization_level", "0")
        yield


@pytest.fixture(
    scope="module",
    params=[
        ("exact", "independent", "gumbel_matching", "switch"),
        pytest.param(tuple(ROUTER_METHODS), marks=pytest.mark.slow),
    ],
    ids=["one of a kind", "all"],
)
def toy(request, tmp_path_factory, quick_compiler):
    """Each method is a program that takes seconds to compile."""
    folder = tmp_path_factory.mktemp("toy")
    code, results = run(folder, "--data", "toy", "--routers", ",".join(request.param))
    assert code == 0
    return folder, results, request.param


@pytest.mark.slow
def test_every_router_has_a_row(toy):
    _, results, methods = toy
    rows = results["rows"]
    assert [row["router"] for row in rows] == list(methods)
    for row in rows:
        assert row.keys() >= KEYS | {"solved", "own_solved", "kind"}
        assert (row["data"], row["starts"], row["steps"]) == ("toy", 2, 5)
        assert 0 <= row["solved"] <= 1
        assert np.isfinite(row["true_loss_median"])
        assert 0 <= row["skipped"] < 1
        unlimited = row["router"] in ("independent", "independent_student", "exact")
        assert 0 < row["max_load"] <= (2 if unlimited else 1)
        low, high = row["true_loss_quartiles"]
        assert low <= row["true_loss_median"] <= high
    assert results["seed"] == 0
    assert "jax" in results["versions"]


@pytest.mark.slow
def test_files(toy):
    folder, results, methods = toy
    for name in ("toy_fit.png", "toy_curves.png", "toy_load.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert (folder / name).stat().st_size > 20_000
    assert not list(folder.glob("*.tmp"))
    assert set(results["pictures"]) == {"toy_fit.png", "toy_curves.png", "toy_load.png"}
    assert all(len(caption) > 40 for caption in results["pictures"].values())
    with np.load(folder / "curves.npz") as curves:
        assert curves["toy/independent/step"].tolist() == [0, 1, 2, 3, 4, 5]
        assert curves["toy/independent/true_loss"].shape == (6, 2)
        assert curves["toy/independent/demand"].shape == (6, 2, 2)
        first = {name: curves[f"toy/{name}/true_loss"][0].tolist() for name in methods}
    assert len(set(map(tuple, first.values()))) == 1  # the same starting points for all


@pytest.mark.slow
def test_same_seed_same_numbers_whatever_else_is_trained(toy, tmp_path):
    _, results, _ = toy
    (tmp_path / "toy_fit.png").write_text("earlier")
    _, again = run(tmp_path, "--data", "toy", "--routers", "switch,independent")
    assert (tmp_path / "toy_fit.1.png").read_text() == "earlier"
    expected = {row["router"]: without_times(row) for row in results["rows"]}
    assert [without_times(row) for row in again["rows"]] == [expected["switch"], expected["independent"]]


@pytest.mark.smoke
def test_digits(tmp_path, capsys):
    code, results = run(tmp_path, "--data", "digits", "--routers", "skip")
    assert code == 0
    names = ["skip", "single_network", "logistic_regression"]
    assert [row["router"] for row in results["rows"]] == names
    for row in results["rows"]:
        assert row.keys() >= KEYS
        assert 0 <= row["accuracy_median"] <= 1
        assert row["log_likelihood_median"] < 0
    linear = results["rows"][-1]
    assert linear["accuracy_median"] > 0.94
    assert linear["steps"] is None
    for name in ("digits_curves.png", "digits_load.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for name in [*names, "true loss", "own predictions"]:
        assert name in printed


@pytest.mark.slow
def test_every_router_on_digits(tmp_path):
    code, results = run(tmp_path, "--data", "digits")
    assert code == 0
    assert [row["router"] for row in results["rows"]][: len(ROUTER_METHODS)] == list(ROUTER_METHODS)


@pytest.mark.slow
def test_every_estimator_on_regions(tmp_path):
    code, results = run(tmp_path, "--data", "regions")
    assert code == 0
    assert [row["router"] for row in results["rows"]] == list(ESTIMATOR_METHODS)


@pytest.mark.slow
def test_a_student_on_regions_beside_the_exact_gradient(tmp_path):
    code, results = run(tmp_path, "--data", "regions", "--routers", "exact,skip-student")
    assert code == 0
    assert [(row["router"], row["kind"]) for row in results["rows"]] == [
        ("exact", "reference"),
        ("skip_student", "weighted"),
    ]
    assert (tmp_path / "regions_curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_experts_for_every_datapoint(tmp_path):
    names = "exact,independent,skip-student,gumbel-matching,switch,base,sinkhorn,expert-choice,loss-free"
    code, results = run(tmp_path, "--data", "regions", "--experts-per-datapoint", "2", "--routers", names)
    assert code == 0
    for row in results["rows"]:
        assert (row["experts_per_datapoint"], row["batch_size"]) == (2, 128)
        if row["router"] not in ("exact", "independent"):
            assert row["max_load"] <= 1


def test_interruption_keeps_what_has_finished(tmp_path, monkeypatch):
    train = compare.train_starts

    def interrupted_later(program, outcome, steps):
        if outcome.router == "switch":
            calls = iter(range(10))

            def stops(states, n):
                if next(calls) == 3:
                    raise KeyboardInterrupt
                return program.run(states, n)

            return train(program._replace(run=stops), outcome, steps)
        return train(program, outcome, steps)

    monkeypatch.setattr(compare, "train_starts", interrupted_later)
    code, results = run(tmp_path, "--routers", "expert_choice,switch,skip")
    assert code == 130
    assert [row["router"] for row in results["rows"]] == ["expert_choice"]
    assert results["interrupted"]["router"] == "switch"
    assert results["interrupted"]["steps"] == 2
    assert (tmp_path / "toy_fit.png").exists()


def test_interruption_before_anything_has_finished(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "train_starts", interrupted)
    code, results = run(tmp_path, "--data", "toy", "--routers", "switch")
    assert code == 130
    assert results["rows"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--routers", "skip,nobody"], "argument --routers: unknown router 'nobody'; choose from independent, skip"),
        (["--routers", ","], "argument --routers: no router named; choose from independent"),
        (["--data", "mnist"], "argument --data: invalid choice: 'mnist'"),
        (["--starts", "0"], "argument --starts: must be a whole number of at least 1, got '0'"),
        (["--steps", "1.5"], "argument --steps: must be a whole number of at least 1, got '1.5'"),
        (
            ["--data", "toy", "--experts-per-datapoint", "3"],
            "argument --experts-per-datapoint: must divide the batches of 100 of toy, and be at most its 2 experts",
        ),
        (
            ["--data", "regions", "--experts-per-datapoint", "2", "--routers", "skip-two-draws"],
            "argument --experts-per-datapoint: skip_two_draws has no variant with several experts per datapoint",
        ),
        (["--seed", "-1"], "argument --seed: must be a whole number of at least 0, got '-1'"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        compare.main(["--out", str(tmp_path / "file" / "inside")])
    assert stop.value.code == 2
    assert "argument --out: cannot create the folder" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_as_a_module():
    command = [sys.executable, "-m", "inference.compare", "--routers", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("python -m inference.compare: error: argument --routers: unknown router 'nobody'")
