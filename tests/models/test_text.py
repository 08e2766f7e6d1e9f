"""Text: which files are held out, and which windows are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.data import draw_windows, even_windows, load_corpus


def folder_of(tmp_path, names):
    for name in names:
        path = tmp_path / "text" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    return tmp_path / "text"


def files(text):
    return {part.decode() for part in text.tobytes().split(b"\0") if part}


def test_files_are_held_out_by_their_names_alone(tmp_path):
    names = [f"part{number % 3}/{number}.txt" for number in range(300)]
    few = load_corpus(folder_of(tmp_path / "few", names[:200]), 0.1)
    many = load_corpus(folder_of(tmp_path / "many", names), 0.1)
    assert files(few.train) | files(few.held_out) == {f"this is {name}" for name in names[:200]}
    assert not files(few.train) & files(few.held_out)
    assert files(few.held_out) == files(many.held_out) & (files(few.train) | files(few.held_out))
    assert 0.04 < len(files(many.held_out)) / 300 < 0.2


def test_what_is_no_text_and_single_files(tmp_path):
    folder = folder_of(tmp_path, [f"{number}" for number in range(60)])
    (folder / "binary").write_bytes(b"text\0and not")
    (folder / "empty").write_bytes(b"")
    corpus = load_corpus(folder, 0.2)
    assert len(files(corpus.train) | files(corpus.held_out)) == 60
    (tmp_path / "one").write_bytes(b"a" * 2**16 * 30 + b"b")
    one = load_corpus(tmp_path / "one", 0.3)
    assert one.train.size + one.held_out.size == 2**16 * 30 + 1 + 31
    assert one.held_out.size >= 2**16


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_corpus(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"bytes to train on and .* held out: give more files"):
        load_corpus(_short(tmp_path))
    with pytest.raises(ValueError, match="held_out must be between 0 and 1"):
        load_corpus(held_out=1.0)


def _short(tmp_path):
    (tmp_path / "short").write_text("text")
    return tmp_path / "short"


def test_windows():
    text = jnp.arange(50, dtype=jnp.uint8)
    windows = np.asarray(draw_windows(jax.random.key(0), text, 400, 7))
    assert (np.diff(windows.astype(int), axis=1) == 1).all()
    assert set(windows[:, 0].tolist()) == set(range(44))  # each is missed with probability 1e-4
    even = even_windows(np.arange(50, dtype=np.uint8), 3, 10)
    assert even[:, 0].tolist() == [0, 20, 40]
    assert even_windows(np.arange(50, dtype=np.uint8), 100, 20).shape == (2, 20)
