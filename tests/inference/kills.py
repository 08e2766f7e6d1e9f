"""`kill -9` of the language model's training at random moments, and what it ends with, against a run without.

`python tests/inference/kills.py [--seed 0]` prints the figures as JSON, and exits with 1 where one bit is another.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from inference.language._curves import read_metrics, read_run
from inference.language._generate import load_state
from tests.inference.on_meshes import SIZES, write_text

KILLS, STEPS = 20, 200
ROOT = Path(__file__).parents[2]


def start(place, folder):
    """The program at work, with a checkpoint after every step: it saves nearly all the time."""
    given = ["--router", "gumbel_matching", "--corpus", str(place / "text"), *SIZES.split()]
    given += ["--steps", str(STEPS), "--every", "1"]
    more = ["--resume"] if (folder / "run.json").exists() else given
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),  # most of a short life would go to the compiler
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "inference.language", "train", *more, "--out", str(folder)]
    with (place / "told.txt").open("ab") as told:
        return subprocess.Popen(command, env=os.environ | settings, cwd=ROOT, stdout=told, stderr=told)


def amid_a_save(folder):
    """Whether a checkpoint was begun and not written, or its checksums were not."""
    steps = list((folder / "checkpoints").glob("*"))
    return any("tmp" in step.name or not (step / "checksums.json").exists() for step in steps if step.is_dir())


def results(folder):
    run = read_run(folder)
    lines = [
        {name: x for name, x in line.items() if "second" not in name} for line in read_metrics(folder) + run.evaluations
    ]
    state = load_state(run.settings, folder)
    assert state is not None
    return lines, jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))


def kill_often(place, seed):
    """The figures of a run of so many lives, the last of which may end by itself."""
    rng, began = np.random.default_rng(seed), time.perf_counter()
    write_text(place / "text")
    whole, broken = place / "whole", place / "broken"
    assert start(place, whole).wait() == 0, (place / "told.txt").read_text()[-2000:]
    journal, amid, reached = broken / "metrics.jsonl", 0, []
    for life in tqdm(range(KILLS), desc="kills", disable=None):
        before = journal.stat().st_size if journal.exists() else 0
        process = start(place, broken)
        # Every fifth at any moment, the others once they train.
        while life % 5 and process.poll() is None and not (journal.exists() and journal.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1 if life % 5 else 10))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
        amid += amid_a_save(broken)
        reached.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
    assert start(place, broken).wait() == 0, (place / "told.txt").read_text()[-2000:]
    (expected, parameters), (found, others) = results(whole), results(broken)
    same = found == expected and all(np.array_equal(a, b) for a, b in zip(parameters, others, strict=True))
    damaged = len(list(broken.glob("checkpoints_damaged/*")))
    seconds = round(time.perf_counter() - began)
    return {
        "kills": KILLS,
        "amid a save": amid,
        "steps": STEPS,
        "steps reached at each kill": reached,
        "damaged checkpoints": damaged,
        "same bits": same,
        "seconds": seconds,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as place:
        figures = kill_often(Path(place), parser.parse_args().seed)
    print(json.dumps(figures))
    sys.exit(not figures["same bits"])
