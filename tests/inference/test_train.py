"""One run: its files, and that an interrupted one ends as if it had never been."""

import json

import equinox as eqx
import jax
import pytest

from inference.train import _program as train
from inference.training.checkpoints import Checkpoints
from inference.training.loop import first_state
from inference.training.methods import METHODS
from inference.training.tasks import TASKS


def arguments(folder, *more, data="toy", router="loss_free"):
    return ["--data", data, "--router", router, "--out", str(folder), *more]


def last_state(folder, data, router):
    task, method = TASKS[data](0), METHODS[router]
    like = first_state(task, method, task.model(jax.random.key(9)), jax.random.key(9))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.latest(like)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("data", "router"),
    [
        ("toy", "loss_free"),
        pytest.param("toy", "skip", marks=pytest.mark.slow),
        pytest.param("digits", "switch", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_is_the_uninterrupted_one_bit_by_bit(data, router, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train.main(arguments(whole, "--steps", "25", "--every", "10", data=data, router=router)) == 0
    assert train.main(arguments(broken, "--steps", "10", "--every", "10", data=data, router=router)) == 0
    # A run that died between the metrics and the checkpoint of a later step, and in the middle of a line.
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "true_loss": -1.0}\n{"step": 2')
    assert train.main(arguments(broken, "--steps", "25", "--resume", data=data, router=router)) == 0
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert [line["step"] for line in lines(whole)] == [0, 10, 20, 25]
    first, second = last_state(whole, data, router), last_state(broken, data, router)
    assert int(first.step) == 25
    assert eqx.tree_equal(first, second)


def test_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    add = train.Journal.add

    def interrupted(journal, step, metrics):
        if step == 4:
            raise KeyboardInterrupt
        return add(journal, step, metrics)

    monkeypatch.setattr(train.Journal, "add", interrupted)
    assert train.main(arguments(tmp_path, "--steps", "6", "--every", "2")) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.undo()
    (tmp_path / "checkpoints" / "2" / "default" / "_METADATA").write_text("")
    assert train.main(arguments(tmp_path, "--steps", "6", "--resume")) == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "damaged" in line)
    assert said.startswith(
        f"the checkpoint of step 2 is damaged; it is now {tmp_path / 'checkpoints_damaged' / '2.0'},"
    )
    assert [line["step"] for line in lines(tmp_path)] == [0, 2, 4, 6]
    metrics = lines(tmp_path)
    assert metrics[0]["loss"] is None  # no batch yet
    assert metrics[-1].keys() >= {"loss", "true_loss", "own_loss", "skipped", "max_load", "load", "demand"}
    assert len(metrics[-1]["load"]) == 2
    # Nothing is left to do, and nothing is done twice.
    assert train.main(arguments(tmp_path, "--steps", "6", "--resume")) == 0
    assert lines(tmp_path) == metrics
    for step in ("4", "6"):
        (tmp_path / "checkpoints" / step / "default" / "_METADATA").unlink()
    with pytest.raises(SystemExit):
        train.main(arguments(tmp_path, "--steps", "6", "--resume"))
    assert "argument --resume: no checkpoint in" in capsys.readouterr().err
    assert lines(tmp_path) == metrics


def test_refusals(tmp_path, capsys):
    run = tmp_path / "run"

    def refused(*given, **named):
        with pytest.raises(SystemExit) as stop:
            train.main(arguments(run, *given, **named))
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert f"{run} holds no run" in refused("--resume")
    assert "unknown router 'nobody'; choose from independent, skip" in refused(router="nobody")
    assert "argument --data: invalid choice" in refused(data="mnist")
    assert "argument --every: must be a whole number of at least 1, got '0'" in refused("--every", "0")
    assert not run.exists()
    assert train.main(arguments(run, "--steps", "1")) == 0
    before = (run / "metrics.jsonl").read_bytes()
    assert f"{run} already holds a run; continue it with --resume" in refused()
    assert "has --router loss_free, not skip" in refused("--resume", router="skip")
    assert "has --seed 0, not 1" in refused("--resume", "--seed", "1")
    assert "has --every 250, not 5" in refused("--resume", "--every", "5")
    assert (run / "metrics.jsonl").read_bytes() == before
