"""What is wrong with a command line is one line on stderr, in its own words, and exit code 2."""

import os
from itertools import product
from unittest.mock import Mock

import numpy as np
import pytest

from gumbel_moe.cli import _files, main
from gumbel_moe.cli._exits import BadArgumentError

DIAGNOSE = ["diagnose", "--router", "skip"]


def refused(capsys, arguments):
    """The one line."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("gumbel-moe")
    assert "error: " in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--n", "0", "argument --n: must be a whole number from 1 to 100,000, got '0'"),
        ("--n", "ten", "argument --n: must be a whole number from 1 to 100,000, got 'ten'"),
        ("--experts", "-1", "argument --experts: must be a whole number"),
        ("--experts", "1.5", "argument --experts: must be a whole number"),
        ("--capacity", "0", "argument --capacity: must be a whole number from 1"),
        ("--capacity", "8,,8", "argument --capacity: must be a whole number from 1"),
        ("--capacity", "8,8", "argument --capacity: must be one number or 8, one for each expert, got 2"),
        ("--floor", "1", "argument --floor: must be at least 0 and below 1, got '1'"),
        ("--floor", "nan", "argument --floor: must be at least 0 and below 1, got 'nan'"),
        ("--experts-per-datapoint", "9", "argument --experts-per-datapoint: must be at most --experts, 8, got 9"),
        ("--experts-per-datapoint", "0", "argument --experts-per-datapoint: must be a whole number from 1 to 1,024"),
        ("--scale", "nan", "argument --scale: must be a number from 0 to 1e+30, got 'nan'"),
        ("--scale", "-1", "argument --scale: must be a number from 0 to 1e+30, got '-1'"),
        ("--scale", "1e38", "argument --scale: must be a number from 0 to 1e+30, got '1e38'"),
        ("--scale", "1e300", "argument --scale: must be a number from 0 to 1e+30, got '1e300'"),
        ("--draws", "3", "argument --draws: must be a whole number from 4 to 10,000,000, got '3'"),
        ("--draws", "9999999", "argument --draws: times --chains must be at most 10,000,000"),
        ("--chains", "0", "argument --chains: must be a whole number"),
        ("--estimator", "wrong", "argument --estimator: invalid choice: 'wrong'"),
        ("--false-fail-rate", "0", "argument --false-fail-rate: must be between 0 and 1, got '0'"),
        ("--false-fail-rate", "1", "argument --false-fail-rate: must be between 0 and 1, got '1'"),
        ("--seed", "-1", "argument --seed: must be a whole number from 0"),
        ("--router", "magic", "argument --router: invalid choice: 'magic'"),
        ("--rooter", "skip", "unrecognized arguments: --rooter skip"),
    ],
)
def test_diagnose_numbers(option, value, said, tmp_path, capsys):
    assert said in refused(capsys, [*DIAGNOSE, "--out", tmp_path, option, value])
    assert list(tmp_path.iterdir()) == []


def test_too_many_logits(tmp_path, capsys):
    said = refused(capsys, [*DIAGNOSE, "--n", "100000", "--experts", "1000", "--out", tmp_path])
    assert "argument --n: times --experts must be at most 10,000,000" in said


@pytest.mark.parametrize("router", ["gumbel-matching", "gumbel_matching", "base"])
def test_no_room(router, tmp_path, capsys):
    said = refused(capsys, ["diagnose", "--router", router, "--capacity", "7", "--out", tmp_path])
    assert "argument --capacity: has room for 56 datapoints (sum over 8 experts), but there are 64" in said


def test_no_room_for_two_experts_each(tmp_path, capsys):
    several = ["--experts-per-datapoint", "2", "--n", "8", "--experts", "4", "--capacity", "20,4,2,1"]
    said = refused(capsys, ["diagnose", "--router", "gumbel-matching", *several, "--out", tmp_path])
    assert "has room for 15 datapoints (sum over 4 experts), but there are 8, of 2 different experts each" in said


@pytest.mark.parametrize("router", ["independent", "switch"])
def test_no_weights_to_leave_out(router, tmp_path, capsys):
    said = refused(capsys, ["diagnose", "--router", router, "--estimator", "uncorrected", "--out", tmp_path])
    assert f"argument --estimator: uncorrected is for skip and gumbel_matching; {router} has no weights" in said


def test_out_is_a_file(tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("old")
    assert f"argument --out: {path} is a file, not a folder" in refused(capsys, [*DIAGNOSE, "--out", path])
    assert "argument --out: cannot make the folder" in refused(capsys, [*DIAGNOSE, "--out", path / "folder"])
    assert path.read_text() == "old"


@pytest.mark.parametrize("arguments", [[], ["diagnose"], ["dance"], ["diagnose", "--router", "skip"]])
def test_incomplete(arguments, capsys):
    refused(capsys, arguments)


def bytes_of(array, folder):
    path = folder / "whole.npy"
    np.save(path, array, allow_pickle=True)
    return path.read_bytes()


BAD_FILES = {
    "a vector": (np.zeros(3), "must hold a matrix of n rows and k columns, got shape (3,)"),
    "no rows": (np.zeros((0, 3)), "must hold a matrix of n rows and k columns, got shape (0, 3)"),
    "integers": (np.zeros((2, 2), int), "must hold floating-point numbers, got int64"),
    "complex": (np.zeros((2, 2), complex), "must hold floating-point numbers, got complex128"),
    "text": (np.array([["a"]]), "must hold floating-point numbers, got <U1"),
    "NaN": (np.array([[0.0, np.nan]]), "must not hold NaN, got 1 of them"),
    "infinite": (np.array([[0.0, np.inf]]), "must not hold +inf"),
    "barred": (np.array([[0.0, 0.0], [-np.inf, -np.inf]]), "forbids every expert (-inf) in row 1"),
    "pickled": (np.array([[{}]]), "is no .npy file of numbers (or holds pickled objects, which are not read)"),
}


@pytest.mark.parametrize("flaw", BAD_FILES)
def test_bad_logits(flaw, tmp_path, capsys):
    array, said = BAD_FILES[flaw]
    path = tmp_path / "logits.npy"
    path.write_bytes(bytes_of(array, tmp_path))
    assert f"argument --logits: {path} {said}" in refused(capsys, of_file(path, tmp_path))
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged: "),
        (b"hello, this is text", "is no .npy file of numbers"),
        (b"\x93NUMPY\x01\x00", "is damaged: "),
        (b"\x93NUMPY\x09\x00v\x00{}", "is damaged: "),
    ],
)
def test_not_an_array(content, said, tmp_path, capsys):
    path = tmp_path / "logits.npy"
    path.write_bytes(content)
    assert f"argument --logits: {path} {said}" in refused(capsys, of_file(path, tmp_path))


@pytest.mark.parametrize("length", [20, 100, 130, 200])
def test_truncated(length, tmp_path, capsys):
    path = tmp_path / "logits.npy"
    path.write_bytes(bytes_of(np.zeros((8, 4)), tmp_path)[:length])
    assert f"argument --logits: {path} is damaged: " in refused(capsys, of_file(path, tmp_path))


def test_header_that_asks_for_too_much(tmp_path, capsys):
    path = tmp_path / "logits.npy"
    whole = bytes_of(np.zeros((8, 4)), tmp_path)
    path.write_bytes(whole.replace(b"(8, 4), }" + b" " * 14, b"(8000000000000000, 4), }"[:23]))
    assert f"argument --logits: {path} " in refused(capsys, of_file(path, tmp_path))


def test_archive(tmp_path, capsys):
    path = tmp_path / "logits.npz"
    np.savez(path, logits=np.zeros((2, 2)))
    assert "is a .npz archive; a .npy file with one matrix is needed" in refused(capsys, of_file(path, tmp_path))


def test_missing_and_folder(tmp_path, capsys):
    path = tmp_path / "nothing.npy"
    said = refused(capsys, of_file(path, tmp_path))
    assert f"argument --logits: {path} cannot be read: No such file or directory" in said
    assert "cannot be read: Is a directory" in refused(capsys, of_file(tmp_path, tmp_path))


def of_file(path, folder):
    return ["sample", "--router", "skip", "--logits", path, "--out", folder / "out.npz"]


@pytest.fixture
def logits(tmp_path):
    path = tmp_path / "logits.npy"
    np.save(path, np.zeros((6, 3), np.float32))
    return path


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--capacity", "2,2", "argument --capacity: must be one number or 3, one for each expert, got 2"),
        ("--capacity", "x", "argument --capacity: must be a whole number from 1"),
        ("--draws", "0", "argument --draws: must be a whole number from 1"),
        ("--draws", "1e9", "argument --draws: must be a whole number from 1 to 10,000,000, got '1e9'"),
        ("--router", "switch", "argument --router: invalid choice: 'switch'"),
        ("--seed", "x", "argument --seed: must be a whole number from 0"),
        ("--experts-per-datapoint", "2", "argument --experts-per-datapoint: must be 1: sample writes the"),
    ],
)
def test_sample_numbers(option, value, said, logits, tmp_path, capsys):
    assert said in refused(capsys, [*of_file(logits, tmp_path), option, value])


def test_sample_needs_room(logits, tmp_path, capsys):
    arguments = [*of_file(logits, tmp_path), "--router", "gumbel-matching", "--capacity", "1"]
    assert "argument --capacity: has room for 3 datapoints" in refused(capsys, arguments)


def test_sample_cannot_write(logits, tmp_path, capsys):
    base = ["sample", "--router", "skip", "--logits", logits, "--out"]
    assert f"argument --out: {tmp_path} is a folder, not a file" in refused(capsys, [*base, tmp_path])
    nowhere = tmp_path / "nowhere"
    assert f"argument --out: there is no folder {nowhere}" in refused(capsys, [*base, nowhere / "x.npz"])
    assert f"argument --out: there is no folder {logits}" in refused(capsys, [*base, logits / "x.npz"])


def test_sample_keeps_the_logits(logits, tmp_path, monkeypatch, capsys):
    """Whatever name leads to them."""
    before = logits.read_bytes()
    (tmp_path / "soft").symlink_to(logits)
    (tmp_path / "hard").hardlink_to(logits)
    monkeypatch.chdir(tmp_path)
    for given, out in product(("logits.npy", logits, "soft"), ("logits.npy", "./logits.npy", logits, "soft", "hard")):
        said = refused(capsys, ["sample", "--router", "skip", "--logits", given, "--out", out])
        assert "argument --out: " in said
        assert "is the file of --logits, which would be lost" in said
    assert logits.read_bytes() == before
    assert (tmp_path / "soft").is_symlink()


@pytest.mark.parametrize("command", ["sample", "diagnose"])
def test_only_files_are_replaced(command, logits, tmp_path, capsys):
    pipe = tmp_path / "out" / "report.html"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    if command == "sample":
        base = ["sample", "--router", "skip", "--logits", logits, "--out"]
        assert "argument --out: /dev/null is a device, not a file" in refused(capsys, [*base, "/dev/null"])
        refusal = refused(capsys, [*base, pipe])
    else:
        refusal = refused(capsys, [*DIAGNOSE, "--out", pipe.parent])
        assert f"argument --out: {pipe} is a pipe, not a folder" in refused(capsys, [*DIAGNOSE, "--out", pipe])
    assert f"argument --out: {pipe} is a pipe, not a file" in refusal
    assert pipe.is_fifo()
    assert list(pipe.parent.iterdir()) == [pipe]


@pytest.mark.parametrize("command", ["sample", "diagnose", "check"])
def test_nothing_is_replaced_unasked(command, logits, tmp_path, capsys):
    there = tmp_path / "out" / ("x.npz" if command == "sample" else "report.json")
    there.parent.mkdir()
    there.write_text("old")
    words = {
        "sample": ["sample", "--router", "skip", "--logits", logits, "--out", there],
        "diagnose": [*DIAGNOSE, "--out", there.parent],
        "check": ["check", "nowhere:problem", "--out", there.parent],
    }[command]
    assert f"argument --out: {there} is there already; --force replaces it" in refused(capsys, words)
    assert there.read_text() == "old"
    assert list(there.parent.iterdir()) == [there]


@pytest.mark.parametrize("option", ["n", "experts", "scale"])
def test_logits_say_what_the_problem_is(option, logits, tmp_path, capsys):
    said = refused(capsys, [*DIAGNOSE, "--logits", logits, f"--{option}", "4", "--out", tmp_path])
    assert f"argument --{option}: is for a random mixture; --logits says what there is" in said


def test_folders_made_in_vain_go_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_files, "_check_writable", fail := Mock(side_effect=BadArgumentError("--out", "is full")))
    assert "argument --out: is full" in refused(capsys, [*DIAGNOSE, "--out", tmp_path / "made" / "by it"])
    assert fail.called
    assert list(tmp_path.iterdir()) == []
