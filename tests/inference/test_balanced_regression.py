"""The wines' program from end to end at small size: what it leaves, what it finds, resumption, bad arguments."""

import json

import numpy as np
import pytest
from xarray import open_datatree

from inference.balanced_regression import _program as program
from inference.balanced_regression._samplers import MODELS

SMALL = ["--splits", "1", "--draws", "30", "--every", "4", "--chains", "2", "--rounds", "3"]


FIRST_AND_LAST = (MODELS[0], MODELS[-1])


@pytest.fixture(
    scope="module",
    params=[pytest.param(models, marks=pytest.mark.slow) for models in (FIRST_AND_LAST, MODELS)],
    ids=len,
)
def finished(request, tmp_path_factory):
    """The balanced fit, and the one from which it starts; or all. The tutorial makes the same fits by default."""
    folder = tmp_path_factory.mktemp("wines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "MODELS", request.param)
        assert program.main([*SMALL, "--out", str(folder)]) == 0
    return folder


def test_rows(finished):
    rows = json.loads((finished / "balanced_regression.json").read_text())["rows"]
    assert [row["method"] for row in rows] in (list(FIRST_AND_LAST), list(MODELS))
    for row in rows:
        assert row["wines"] == 39
        np.testing.assert_allclose(sum(row["sizes"]), 39, atol=0.05)
        assert row["accuracy"] > 0.6  # a third by chance
        assert -1.1 < row["log_prob"] < 0
    assert rows[-1]["sizes"] == rows[-1]["true_sizes"]
    assert rows[-1]["sizes_sd"] == [0, 0, 0]
    assert all(min(row["sizes_sd"]) > 0 for row in rows[:-1])


def test_files(finished):
    with open_datatree(finished / "balanced_regression.nc", engine="h5netcdf") as tree:
        assert dict(tree["posterior"]["z"].sizes) == {"chain": 2, "draw": 30, "datapoint": 39}
        assert tree["posterior"]["datapoint"].values[1] == "wine 1"
        assert dict(tree["constant_data"]["membership"].sizes) == {"datapoint": 39, "expert": 3}
        z = tree["posterior"]["z"].values
        assert (z[:, 1:] != z[:, :-1]).any(axis=(1, 2)).all()  # every chain moves
    for name in ("wines_fit.png", "wines_co_assignment.png", "wines_slopes.png"):
        assert (finished / name).read_bytes()[:4] == b"\x89PNG"


def test_interruption_keeps_what_finished_and_resuming_goes_on(tmp_path, monkeypatch, capsys):
    """Without the samplers: which fits are made, of which wines, in which order."""
    made = []

    def fit(model, wines, start, *_):
        if len(made) == 6 and stop:
            raise KeyboardInterrupt
        made.append((model, start is not None))
        shape = (2, 5)
        noise = np.random.default_rng(len(made)).uniform(1, 2, (*shape, 3, 3))
        z = np.broadcast_to(wines.truth, (*shape, len(wines.truth)))
        return {"intercept": noise, "slope": noise, "noise": noise, "z": z, "membership": np.eye(3)[z]}

    monkeypatch.setattr(program, "fit", fit)
    stop = True
    arguments = [*SMALL[2:], "--splits", "2", "--out", str(tmp_path)]
    assert program.main(arguments) == 130
    rows = json.loads((tmp_path / "balanced_regression.json").read_text())["rows"]
    assert len(rows) == 6
    stop = False
    made.clear()
    assert program.main([*arguments, "--resume"]) == 0
    assert made == [(MODELS[0], False)] + [(model, True) for model in MODELS[1:]]
    assert json.loads((tmp_path / "balanced_regression.json").read_text())["rows"][:6] == rows
    table = capsys.readouterr().out.splitlines()[-8:]
    assert [line.split()[0] for line in table] == ["0"] * 4 + ["1"] * 4
    with pytest.raises(SystemExit) as end:
        program.main([*arguments, "--resume", "--seed", "1"])
    assert end.value.code == 2
    assert "argument --resume" in capsys.readouterr().err
    earlier = (tmp_path / "balanced_regression.json").read_text()
    assert program.main([*SMALL, "--out", str(tmp_path)]) == 0  # a new run keeps what an earlier one found
    assert (tmp_path / "balanced_regression.1.json").read_text() == earlier
    assert (tmp_path / "balanced_regression.1.nc").exists()
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_dir()) == []


@pytest.mark.parametrize(("option", "value"), [("--draws", "0"), ("--seed", "-1"), ("--splits", "many")])
def test_bad_arguments(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        program.main([option, value])
    assert end.value.code == 2
    assert f"argument {option}: must be a whole number" in capsys.readouterr().err
