"""Files that are there whole or not at all, and what is no file."""

import os
import socket
import stat

import numpy as np
import pytest

from gumbel_moe._whole_file import other_than_file, whole_file, write_json, write_text
from tests.full_disk import full_disk


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    return path


def half(trouble):
    """A line, then no more."""
    yield "ne"
    raise trouble


@pytest.mark.parametrize("trouble", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_trouble_while_writing_leaves_the_old_file(trouble, old, tmp_path):
    with pytest.raises(trouble), whole_file(old) as part, part.open("w") as file:
        file.writelines(half(trouble))
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def savez(part):
    with part.open("wb") as file:
        np.savez(file, numbers=np.arange(10_000))


@pytest.mark.parametrize("write", [lambda part: part.write_text("n" * 10_000), savez], ids=["text", "arrays"])
def test_full_disk_leaves_the_old_file(write, old, tmp_path):
    with pytest.raises(OSError, match="File too large"), full_disk(5000), whole_file(old) as part:
        write(part)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_several_files_are_all_there_or_none(old, tmp_path):
    new = tmp_path / "new"
    with pytest.raises(OSError, match="File too large"), full_disk(5000), whole_file(old) as a, whole_file(new) as b:
        a.write_text("new") + b.write_text("n" * 10_000)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_new_file_takes_the_place_of_the_old(old, tmp_path):
    write_text(old, "new")
    assert old.read_text() == "new"
    assert list(tmp_path.iterdir()) == [old]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(old, {"x": np.nan})
    assert old.read_text() == "new"


def test_permissions_are_those_of_any_file_or_of_the_older_one(old, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text(tmp_path / "new", "")
    assert (tmp_path / "new").stat().st_mode == plain.stat().st_mode
    old.chmod(0o640)
    write_text(old, "new")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_links_are_followed(old, tmp_path):
    soft, dangling = tmp_path / "soft", tmp_path / "dangling"
    soft.symlink_to(old)
    dangling.symlink_to("made")
    write_text(soft, "new")
    write_text(dangling, "new")
    assert soft.is_symlink()
    assert dangling.is_symlink()
    assert old.read_text() == (tmp_path / "made").read_text() == "new"


def not_files(folder):
    """What no file may take the place of, by the words for it."""
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))
    (folder / "link").symlink_to(folder / "fifo")
    return {"fifo": "a pipe", "link": "a pipe", "s": "a socket", ".": "a folder", "/dev/null": "a device"}


def test_what_is_no_file_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    for name, kind in not_files(tmp_path).items():
        before = os.lstat(name)
        assert other_than_file(name) == kind
        with pytest.raises(OSError, match=f"Is {kind}, not a file"), whole_file(name):
            pass
        assert os.path.samestat(before, os.lstat(name))
    assert sorted(os.listdir()) == ["fifo", "link", "s"]


def test_standard_output_is_not_replaced(tmp_path):
    """Through a pipe it is one, and its name in the system's folder leads to no file that could be made."""
    read, write = os.pipe()
    try:
        assert other_than_file(f"/dev/fd/{write}") == "a pipe"
        assert other_than_file(f"/dev/fd/{read}") == "a pipe"
    finally:
        os.close(read)
        os.close(write)


def test_long_name(tmp_path):
    write_text(tmp_path / ("n" * 255), "new")
    assert (tmp_path / ("n" * 255)).read_text() == "new"
