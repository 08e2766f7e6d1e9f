"""Damaged checkpoints are found out, and one writer at a time has a folder."""

import os
import shutil
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from inference import balanced_regression, compare, latent_routing, train
from inference.shared.arguments import Parser
from inference.shared.folder import sole_writer
from inference.training.checkpoints import Checkpoints, DamagedError
from inference.training.loop import TrainState


def state(step):
    weight = step + jnp.arange(600.0)  # enough to be compressed, and a flipped bit to go unnoticed
    return TrainState({"weight": weight}, {"mean": weight / 2}, None, jnp.int32(step), jax.random.key(step))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (0, 2, 4):
            checkpoints.save(state(step))
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "checkpoints")


def delete(path):
    path.unlink()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_any_damaged_file_is_found_out(kept, tmp_path):
    for number, path in enumerate(files(kept / "4")):
        harm = (delete, truncate, flip)[number % 3]
        folder = shutil.copytree(kept, tmp_path / str(number) / "checkpoints")
        if harm is delete and path.name == "checksums.json":
            harm = flip  # as if it had been saved without: tried below
        harm(folder / path.relative_to(kept))
        with Checkpoints(folder) as checkpoints:
            assert eqx.tree_equal(checkpoints.latest(state(0)), state(2)), path
            moved = folder.with_name("checkpoints_damaged") / "4.0"
            assert checkpoints.moved == {4: moved}, path
            assert len(files(moved)) == len(files(kept / "4")) - (harm is delete)
            checkpoints.save(state(4))
            assert eqx.tree_equal(checkpoints.latest(state(0)), state(4)), path


def test_without_checksums_a_flipped_bit_is_read_as_it_is(folder):
    flip(max(files(folder / "4" / "default"), key=lambda path: path.stat().st_size))
    (folder / "4" / "checksums.json").unlink()
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.latest(state(0))
    assert int(found.step) == 4
    assert not eqx.tree_equal(found, state(4))


def test_runs_saved_before_there_were_checksums(folder):
    for path in folder.rglob("checksums.json"):
        path.unlink()
    with Checkpoints(folder) as checkpoints:
        assert eqx.tree_equal(checkpoints.latest(state(0)), state(4))
    shutil.rmtree(folder / "4" / "default")
    with Checkpoints(folder) as checkpoints:
        assert eqx.tree_equal(checkpoints.latest(state(0)), state(2))
        assert list(checkpoints.moved) == [4]


@pytest.mark.parametrize("gone", ["4", "4/default", "4/default/d"])
def test_folders_that_are_gone(gone, folder):
    shutil.rmtree(folder / gone)
    with Checkpoints(folder) as checkpoints:
        assert eqx.tree_equal(checkpoints.latest(state(0)), state(2))


def test_when_nothing_is_whole_nothing_moves(folder):
    for step in "24":
        flip(folder / step / "default" / "_METADATA")
    before = files(folder.parent)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(DamagedError, match=r"step 4: its files .*step 2: its files"),
    ):
        checkpoints.latest(state(0))
    assert files(folder.parent) == before


PROGRAMS = {
    train: ["--data", "toy", "--router", "skip"],
    compare: [],
    latent_routing: [],
    balanced_regression: [],
}


def refuses(program, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main([*PROGRAMS[program], "--out", str(folder)])
    error = capsys.readouterr().err
    return stop.value.code == 2 and f"another program writes in {folder}" in error and error.count("\n") == 1


@pytest.mark.slow
def test_every_program_keeps_out_of_the_folder_of_another(tmp_path, capsys):
    with sole_writer(Parser(), tmp_path):
        for program in PROGRAMS:
            assert refuses(program, tmp_path, capsys), program
    assert list(tmp_path.iterdir()) == []


def test_a_killed_program_holds_no_folder(tmp_path, capsys):
    holds = (
        "import fcntl, os, sys, time\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", holds, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert refuses(train, tmp_path, capsys)
        other.kill()
    with sole_writer(Parser(), tmp_path):
        pass
