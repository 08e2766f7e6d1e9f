"""Figures of a comparison that a few starts or a diverged one could upset, and files that are never half written."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gumbel_moe._whole_file import write_json
from inference.compare._summary import row_of
from inference.compare._table import legend, results_table
from inference.shared.folder import keep_earlier
from inference.training.starts import Outcome

WINDOW = {"skipped": 0.25, "max_load": 1.0, "max_demand": 1.5}


def outcome(true_loss, own_loss, argmax_loss, router="skip", points=3):
    metrics = {"true_loss": true_loss, "own_loss": own_loss, "argmax_loss": argmax_loss}
    first = {
        name: np.full(len(values), np.nan) for name, values in (metrics | dict.fromkeys(WINDOW, true_loss)).items()
    }
    last = {name: np.array(values, float) for name, values in metrics.items()}
    last |= {name: np.full(len(true_loss), value) for name, value in WINDOW.items()}
    made = Outcome("toy", router, "weighted")
    for step in range(points):
        made.add(10 * step, last if step else first, SimpleNamespace())
    return made


TASK = SimpleNamespace(evaluation=SimpleNamespace(solved_below=0.01), experts_per_datapoint=1)


def test_row_by_hand():
    row = row_of(TASK, outcome([0.1, 0.3, 0.2, 0.4], [0.001, 0.3, 0.2, 0.4], [0.001, 0.002, 0.01, 0.5]))
    assert (row["starts"], row["steps"]) == (4, 20)
    assert row["solved"] == 0.5  # 0.01 itself is not below
    assert row["own_solved"] == 0.25
    assert row["true_loss_median"] == pytest.approx(0.25)
    assert (row["skipped"], row["max_load"], row["max_demand"]) == (0.25, 1.0, 1.5)


def test_diverged_starts_count_as_infinitely_bad():
    nan = np.nan
    row = row_of(TASK, outcome([0.1, nan, 0.2, nan, 0.3], [nan, nan, nan, 0.1, 0.2], [nan, 0.001, nan, nan, nan]))
    assert row["true_loss_median"] == pytest.approx(0.3)
    assert row["own_loss_median"] is None
    assert row["solved"] == pytest.approx(0.2)
    json.dumps(row, allow_nan=False)


def test_files_are_whole_or_absent(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"rows": [1]})
    with pytest.raises(TypeError):
        write_json(path, {"rows": [object()]})
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(path.read_text()) == {"rows": [1]}
    assert keep_earlier(path) == tmp_path / "results.1.json"
    assert keep_earlier(path) is None
    write_json(path, {"rows": [2]})
    assert keep_earlier(path) == tmp_path / "results.2.json"
    assert json.loads((tmp_path / "results.1.json").read_text()) == {"rows": [1]}


def test_table_is_aligned_and_explained():
    rows = [row_of(TASK, outcome([0.1], [0.2], [0.3], router)) for router in ("skip", "gumbel_matching")]
    rows[1]["own_loss_median"] = None
    lines = results_table("toy", rows).splitlines()
    assert lines[0] == "toy: 1 starts, 20 steps"
    heading, rule, first, second = lines[2:]
    assert len(rule) == len(heading) == len(first) == len(second)
    assert first.split() == ["skip", "weighted", "0%", "0%", "0.1000", "0.2000", "25.0%", "1.00", "1.50"]
    assert second.split()[5] == "-"
    assert "accuracy" not in heading
    explained = legend(rows)
    assert "solved: fraction of starts" in explained
    assert "skip, gumbel_matching: one expert drawn from p" in explained
    assert "accuracy:" not in explained
