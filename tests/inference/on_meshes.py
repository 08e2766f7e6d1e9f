"""The language model's training on eight virtual devices, against one: runs that change their devices half-way, and
runs that do not; status 1 where they differ by more than 1e-4. `python on_meshes.py FOLDER ROUTER FLAG...`
"""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from inference.language import _program as program
from inference.language import _run
from inference.language._curves import read_metrics, read_run
from inference.language._generate import load_state

STEPS, HALF = 10, 5
MESHES = {"one": [], "data=2,expert=4": ["--mesh", "data=2,expert=4"], "data=4": ["--mesh", "data=4"]}
TOLERANCE = 1e-4
SIZES = "--batch 8 --context 8 --layers 2 --width 8 --heads 2 --experts 4 --expert-width 8 --windows 8 --warmup 2"


def write_text(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"the number of this file is {number}, and that is all it says\n" * 3)
    return folder


def run(folder, given, first, second):
    """A run that is told to end after half of its steps, and goes on on another mesh; the same mesh: that is not."""
    add = _run.Journal.add

    def told(journal, step, metrics):
        if step == HALF and len(metrics) > 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(journal, step, metrics)

    if first != second:
        _run.Journal.add = told
        code = program.main(["train", *given, *MESHES[first], "--out", str(folder)])
        _run.Journal.add = add
        assert code == 128 + signal.SIGTERM, code
    resume = ["--resume"] if first != second else []
    assert program.main(["train", *given, *MESHES[second], "--out", str(folder), *resume]) == 0
    found = read_run(folder)
    state = load_state(found.settings, folder)
    trained = [line for line in read_metrics(folder) if line.pop("tokens_per_second")]
    tested = [{name: x for name, x in line.items() if "seconds" not in name} for line in found.evaluations]
    return jax.tree.map(np.asarray, (state._replace(key=jax.random.key_data(state.key)), trained, tested[-1:]))


def apart(one, many):
    return float(np.max(np.abs(one - many), initial=0))


def main(folder, router, *flags):
    given = ["--router", router, *flags, *SIZES.split(), "--steps", str(STEPS), "--every", str(STEPS)]
    given += ["--corpus", str(write_text(folder / "text"))]
    pairs = [("one", "one"), ("data=2,expert=4", "data=2,expert=4"), ("one", "data=2,expert=4"), ("data=4", "one")]
    runs = [run(folder / str(number), given, *pair) for number, pair in enumerate(pairs)]
    gaps = [max(jax.tree.leaves(jax.tree.map(apart, runs[0], other))) for other in runs[1:]]
    for pair, gap in zip(pairs[1:], gaps, strict=True):
        print(f"{' then '.join(pair)}: {gap:.1e} apart")
    assert all(len(found[1]) == STEPS for found in runs)
    return int(max(gaps) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
