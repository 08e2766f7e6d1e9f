"""Hard treatment that takes too long for a test: kills, a full disk, new shapes, threads, processes, Ctrl-C.

`python -m tests.stress --seed 0 [--only NAME]` prints a table, case by case, and exits with 1 if anything was lost or
came out wrong.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.matching import solve_matching

STEPS = 150
KILLS = 20


class LostError(Exception):
    """What a case says that found something lost or wrong."""


def train(folder, cache, *more, room=None):
    """The training program at work, with a checkpoint after every step."""
    command = [sys.executable, "-m", "inference.train", "--data", "toy", "--router", "skip", "--out", str(folder)]
    command += ["--steps", str(STEPS), "--every", "1", *more]
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),  # most of a short life would go to the compiler
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    limit = None if room is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with (folder.parent / "errors.txt").open("ab") as errors:
        return subprocess.Popen(
            command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=errors, preexec_fn=limit
        )


def finish(folder, cache):
    """Go on with a run to its end."""
    more = ["--resume"] if (folder / "run.json").exists() else []
    if code := train(folder, cache, *more).wait():
        raise LostError(f"the resumed run ended with {code}: {(folder.parent / 'errors.txt').read_text()[-300:]}")


def compare(folder, whole):
    """That a run ended as the uninterrupted one did: every metric of every step, which no wrong state could repeat."""
    if (folder / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes():
        raise LostError(f"the metrics in {folder} are not those of an uninterrupted run")
    for step in (STEPS - 1, STEPS):
        if not (folder / "checkpoints" / str(step) / "checksums.json").exists():
            raise LostError(f"no checkpoint of step {step}")
    if damaged := list(folder.glob("checkpoints_damaged/*")):
        raise LostError(f"checkpoints were found damaged: {damaged}")


def kills(place, rng):
    """`kill -9` of training at random moments: a step takes no time, so that most of them are amid a save."""
    whole, broken, cache = place / "whole", place / "broken", place / "cache"
    finish(whole, cache)
    journal, amid = broken / "metrics.jsonl", 0
    for life in tqdm(range(KILLS), desc="kills", disable=None):
        before = journal.stat().st_size if journal.exists() else 0
        process = train(broken, cache, *(["--resume"] if (broken / "run.json").exists() else []))
        while life % 5 and process.poll() is None and not (journal.exists() and journal.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2 if life % 5 else 4))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise LostError(f"life {life} ended by itself: {(place / 'errors.txt').read_text()[-300:]}")
        amid += len(list(broken.glob("checkpoints/*tmp*"))) > 0
    reached = journal.read_text().count("\n") if journal.exists() else 0
    finish(broken, cache)
    compare(broken, whole)
    return f"{KILLS} kills, {amid} left half a checkpoint; step {reached - 1} of {STEPS} by then; the end is the same"


def full_disk(place, rng):
    """No file may grow beyond so many bytes: the end of training, and what is there can be resumed."""
    whole, cache = place / "whole", place / "cache"
    finish(whole, cache)
    codes = []
    for room in (200, 600, 1500, 20_000):
        broken = place / f"full{room}"
        codes.append(train(broken, place / "other_cache", room=room).wait())
        finish(broken, cache)
        compare(broken, whole)
    if not all(codes):
        raise LostError(f"training ended well on a full disk: {codes}")
    return "4 sizes of a disk; once there is room, the end is the same"


def maps():
    """Mappings of this process, and its memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Path("/proc/self/maps").read_text().count("\n"), pages * resource.getpagesize() / 2**20


def new_shapes(place, rng):
    """Solve and draw with a new shape each time; Linux lets a process have 65,530 mappings."""
    shapes = [(n, k) for n in range(8, 60) for k in (2, 3, 4)][:120]
    seen = [maps()]
    for n, k in tqdm(shapes, desc="shapes", disable=None):
        scores = rng.normal(size=(n, k)).astype(np.float32)
        solve_matching(scores, -(-n // k))
        GumbelMatching(scores, -(-n // k)).sample(jax.random.key(n))
        seen.append(maps())
    late = np.subtract(seen[-1], seen[len(seen) // 2]) / (len(seen) // 2)
    return (
        f"{len(shapes)} shapes: {late[0]:.1f} mappings and {late[1]:.2f} MiB a shape, so that the system's 65,530 "
        f"mappings last for {(65_530 - seen[0][0]) / max(late[0], 1e-9):,.0f}; jax.clear_caches() leaves {cleared()}"
    )


def cleared():
    jax.clear_caches()
    number, memory = maps()
    return f"{number} mappings, {memory:.0f} MiB"


def answers(seed):
    """What a few problems come to."""
    scores = np.random.default_rng(seed).normal(size=(64, 4)).astype(np.float32)
    drawn = GumbelMatching(scores, 16).sample(jax.random.key(seed))
    return np.stack([solve_matching(scores, 16).assignment, drawn])


def threads(place, rng):
    """Four threads at once."""
    expected = [answers(seed) for seed in range(40)]
    jax.clear_caches()  # so that they compile at once, too
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(answers, range(40)), expected, strict=True):
            if not np.array_equal(one, other):
                raise LostError("threads give other answers")
    return "40 calls, the same answers"


def fork(place, rng):
    """A child of `os.fork` after JAX has run; JAX itself warns of that."""
    expected = answers(0)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(answers(0), expected) else 3)
    for _ in range(300):
        time.sleep(0.1)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code == 3:
                raise LostError("a child gives another answer")
            return f"the child ended with {code}"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "the child hangs, as JAX warns it may; the parent is well" + same_after(expected)


def spawn(place, rng):
    """Two processes of `multiprocessing`, made afresh."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for seed, other in enumerate(pool.map(answers, range(4))):
            if not np.array_equal(answers(seed), other):
                raise LostError("processes give other answers")
    return "4 calls in 2 processes, the same answers"


def same_after(expected):
    if not np.array_equal(answers(0), expected):
        raise LostError("other answers than before")
    return ""


def interrupt(place, rng):
    """Ctrl-C in a solve of some seconds."""
    expected = answers(0)
    centres = rng.normal(size=(50, 64))
    scores = (centres[rng.integers(50, size=16_384)] + 1e-3 * rng.normal(size=(16_384, 64))).astype(np.float32)
    began = time.perf_counter()
    jax.block_until_ready(solve_matching(scores, 256))
    alone = time.perf_counter() - began
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    began = time.perf_counter()
    timer.start()
    try:
        jax.block_until_ready(solve_matching(scores, 256))
        time.sleep(5)
    except KeyboardInterrupt:
        noticed = time.perf_counter() - began - 0.3
        return f"a solve of {alone:.1f} s; noticed after {noticed:.1f} s; answers as before" + same_after(expected)
    raise LostError("Ctrl-C was never noticed")


CASES = {case.__name__: case for case in (kills, full_disk, new_shapes, threads, fork, spawn, interrupt)}


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description="Hard treatment; exit code 1 on a loss."
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the problems (default: 0)")
    parser.add_argument("--only", choices=CASES, help="one case (default: all)")
    args = parser.parse_args()
    outcomes = {}
    for name in [args.only] if args.only else CASES:
        with tempfile.TemporaryDirectory() as place:
            try:
                outcomes[name] = CASES[name](Path(place), np.random.default_rng(args.seed))
            except LostError as error:
                outcomes[name] = f"LOST: {error}"
    for name, outcome in outcomes.items():
        print(f"{name:12s}{outcome}")
    return int(any(outcome.startswith("LOST") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
