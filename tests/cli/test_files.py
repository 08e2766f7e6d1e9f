"""Files that are there whole or not at all."""

import pytest

from gumbel_moe.cli._exits import BadArgumentError
from gumbel_moe.cli._files import write_whole


def test_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def half(part):
        part.write_text("ne")
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        write_whole(path, half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_takes_the_place_of_the_old(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    write_whole(path, lambda part: part.write_text("new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_one_line(tmp_path):
    def full(part):
        raise OSError(28, "No space left on device")

    with pytest.raises(BadArgumentError, match=r"argument --out: cannot write .*: No space left on device"):
        write_whole(tmp_path / "x", full)
    assert list(tmp_path.iterdir()) == []
