"""The latent routing from end to end on tiny settings: rows, loads, files, resumption, bad arguments."""

import json

import numpy as np
import pytest

from inference.latent_routing import _program as latent_routing
from inference.latent_routing import _svi
from inference.latent_routing._estimators import ESTIMATORS
from inference.shared.machine import COMPILER
from models import latent_routing as lr

TINY = ["--starts", "2", "--steps", "4", "--images", "40", "--particles", "2"]
NAMES = ["marginal", "skip_1.00"]


def run(folder, *arguments):
    code = latent_routing.main([*TINY, "--out", str(folder), *arguments])
    return code, json.loads((folder / "latent_routing.json").read_text())


ALONE = []  # whether nobody else could trace a model when this was done


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    model = lr.model

    def watched(*args):
        ALONE.append(_svi._TRACING.locked())
        return model(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr, "model", watched)
        patch.setitem(COMPILER, "xla_backend_optimization_level", "0")
        code, results = run(folder, "--estimators", ",".join(NAMES))
    assert code == 0
    return folder, results


@pytest.mark.slow
def test_rows(done):
    _, results = done
    rows = {row["estimator"]: row for row in results["rows"]}
    assert list(rows) == [*NAMES, "linear_regression"]
    assert results["settings"] == {"seed": 0, "starts": 2, "steps": 4, "particles": 2, "images": 40}
    skip = rows["skip_1.00"]
    assert skip["capacity"] == 5
    assert 0 < skip["busiest"] <= 5
    assert skip["evaluations"] <= 2 * 40
    assert skip["elbo_median"] <= skip["log_likelihood_median"]
    assert skip["gradient_error"] > 0
    assert rows["marginal"]["evaluations"] == 8 * 40
    assert rows["marginal"]["away_median"] < 1e-3  # its guide is the exact one
    for row in rows.values():
        low, high = row["test_quartiles"]
        assert low <= row["test_median"] <= high


@pytest.mark.slow
@pytest.mark.usefixtures("done")
def test_two_threads_never_trace_models_at_once():
    """One compiles the next estimator while the other draws from the last."""
    assert len(ALONE) > 2
    assert all(ALONE)


@pytest.mark.slow
def test_files(done):
    folder, _ = done
    for name in ("fit", "curves", "load"):
        assert (folder / f"latent_routing_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*.tmp"))
    with np.load(folder / "latent_routing_fits" / "skip_1.00.npz") as fit:
        assert fit["curves/elbo"].shape == (2, 5)
        assert fit["at"].tolist() == [0, 1, 2, 3, 4]
        assert fit["load"].shape == (2, 8)


@pytest.mark.slow
def test_resume_keeps_what_has_finished(done, monkeypatch, capsys):
    folder, results = done

    def compile_nothing(*_):
        raise AssertionError("all estimators had finished")

    monkeypatch.setattr(latent_routing, "compile_fit", compile_nothing)
    code, again = run(folder, "--estimators", ",".join(NAMES), "--resume")
    assert code == 0
    assert again["rows"] == results["rows"]
    assert "skip_1.00" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_refuses_other_settings(done, capsys):
    folder, _ = done
    with pytest.raises(SystemExit):
        run(folder, "--resume", "--seed", "1")
    assert f"the run in {folder} has --seed 0, not 1" in capsys.readouterr().err


@pytest.mark.slow
def test_interruption_keeps_what_has_finished(tmp_path, monkeypatch, done):
    finished, _ = done
    fits = iter([latent_routing.Fit.read(finished / "latent_routing_fits" / "skip_1.00.npz")])

    def train(*_):
        try:
            return next(fits)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(latent_routing, "compile_fit", lambda *_: None)
    monkeypatch.setattr(latent_routing, "train_fit", train)
    code, results = run(tmp_path, "--estimators", "skip_1.00,matching_1.00")
    assert code == 130
    assert [row["estimator"] for row in results["rows"]] == ["skip_1.00", "linear_regression"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "skip_1.00,nobody"], "unknown estimator 'nobody'; choose from marginal, enumerated"),
        (["--estimators", ","], "unknown estimator ''"),
        (["--images", "3"], "argument --images: must be from 16 to 1700, got 3"),
        (["--particles", "0"], "argument --particles: must be a whole number of at least 1, got '0'"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        latent_routing.main([*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_capacities():
    assert {name: estimator.capacity(804, 8) for name, estimator in ESTIMATORS.items()} == {
        "marginal": 804,
        "enumerated": 804,
        "trace_graph": 804,
        "independent": 804,
        "skip_no_limit": 804,
        "skip_1.25": 126,
        "skip_1.00": 101,
        "matching_1.25": 126,
        "matching_1.00": 101,
        "skip_1.00_uncorrected": 101,
        "matching_1.00_uncorrected": 101,
    }
