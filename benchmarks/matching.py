"""Exact capacitated matching side by side with its peers, in one run: medians of interleaved repetitions.

    python -m benchmarks.matching [--sizes 1024x16,16384x64] [--families random,ties] [--repeats 15] [--seed 0]
                                  [--resume] [--out benchmarks/results] [--images docs/images]

Every solver gets the same scores and the same equal capacities: logits plus Gumbel noise, or the harder families. Each
repetition times one call of every solver, after others that are not timed, so that none pays for the one before.
Compile time is left out and reported on its own. Writes `matching.json` after every row, and a picture of time
against `n`. A run that was interrupted goes on with `--resume`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import matching_peers as peers
from benchmarks._machine import machine
from benchmarks.matching_picture import picture
from benchmarks.matching_problems import FAMILIES, family
from benchmarks.matching_scipy import scipy_total
from gumbel_moe._whole_file import write_json
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.distributions._gumbel_noise import gumbel_noise
from gumbel_moe.matching import exchange_distances, solve_matching
from gumbel_moe.matching._compiled import AVAILABLE, suits
from gumbel_moe.matching._solve import _solve

SIZES = "128x2,1024x8,1024x16,4096x64,16384x64,16384x256,65536x64"
OURS = "gumbel_moe"
OTHER = "gumbel_moe other"  # the search where the compiled solver is used, and that where the search is
IN_PROGRAM_NAME = "gumbel_moe in a program"  # a call from Python has a fixed cost, which counts for small problems
IN_PROGRAM, IN_PROGRAM_LIMIT = 8, 4096  # problems in the program, and datapoints at most
BATCH = (64, 256, 8)
WARM_UP = 0.05  # seconds of calls that are not timed
DRAW_REPEATS = 3  # times as many, as the ratio of two of these times is of interest
PATIENCE = 2.0  # seconds: what would take longer is repeated less often


def seconds(calls: dict[str, Callable[[], Any]], repeats: int, label: str) -> dict[str, float]:
    """Median time of every call, interleaved; a slow call gets fewer repetitions.

    Each is repeated for a while before it is timed: the first calls after another solver's can take half as long again.
    """
    rounds: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        call()  # compiles
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        rounds[name] = min(repeats, int(PATIENCE / took))
        if rounds[name] == 0:
            times[name].append(took)
    for number in tqdm(range(repeats), desc=label, leave=False):
        for name, call in calls.items():
            if number >= rounds[name]:
                continue
            begin = time.perf_counter()
            while time.perf_counter() - begin < WARM_UP:
                call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(some)) for name, some in times.items()}


def solver_row(name: str, n: int, k: int, repeats: int, seed: int, on_gpu: bool) -> dict[str, Any]:
    """Every solver on one problem: times, and whether the totals agree."""
    scores, capacity = family(name, n, k, seed), n // k
    on_device = jnp.asarray(scores)
    solve = jax.jit(lambda s: solve_matching(s, capacity))
    solved = solve.lower(on_device)
    start = time.perf_counter()
    compiled = solved.compile()
    compile_seconds = time.perf_counter() - start
    calls: dict[str, Callable[[], Any]] = {OURS: lambda: jax.block_until_ready(compiled(on_device))}
    small = suits(n, k) and not on_gpu
    if AVAILABLE and not on_gpu:
        places = jnp.full(k, capacity, jnp.int32)
        other = jax.jit(lambda s: _solve(s, places, None, full=True, compiled=not small))
        calls[OTHER] = lambda: jax.block_until_ready(other(on_device))
    if n <= IN_PROGRAM_LIMIT:
        several = jnp.stack([jnp.asarray(family(name, n, k, seed + i)) for i in range(IN_PROGRAM)])
        calls[IN_PROGRAM_NAME] = lambda: jax.block_until_ready(solve(several))
    if not on_gpu:
        calls |= peers.solvers(scores, capacity)
    median = seconds(calls, repeats, f"{name} ({n}, {k})")
    if IN_PROGRAM_NAME in median:
        median[IN_PROGRAM_NAME] /= IN_PROGRAM
    memory = compiled.memory_analysis()
    match = compiled(on_device)
    total = float(np.asarray(scores, np.float64)[np.arange(n), match.assignment].sum())
    row = {
        "family": name,
        "n": n,
        "k": k,
        "seconds": median,
        "compile_seconds": compile_seconds,
        "temporary_memory_over_scores": memory.temp_size_in_bytes / scores.nbytes if memory else None,
        "gap_over_range": float(match.gap) / float(np.ptp(scores)),
        "steps": int(match.steps),
        "solver": "compiled" if small else "search",
    }
    if not on_gpu:
        best = calls["POT"]()
        row["times_faster"] = {peer: median[peer] / median[OURS] for peer in median if not peer.startswith(OURS)}
        row["relative_difference_to_pot"] = abs(total - best) / abs(best)
    return row


def draw_row(n: int, k: int, repeats: int, seed: int) -> dict[str, Any]:
    """A full draw of `GumbelMatching` with conditionals, beside its parts, and a warm start."""
    capacity = n // k
    logits = jnp.asarray(np.random.default_rng(seed).normal(size=(n, k)), jnp.float32)
    noise = jax.jit(lambda key: jax.random.gumbel(key, (n, k)))
    draw = jax.jit(lambda a, key: GumbelMatching(a, capacity).sample_with_conditionals(key))
    solve = jax.jit(lambda s: solve_matching(s, capacity))
    warm = jax.jit(lambda s, u: solve_matching(s, capacity, prices=u))
    distances = jax.jit(lambda s, z: exchange_distances(s, z, capacity))
    keys = jax.random.split(jax.random.key(seed), 3)
    key = keys[0]
    scores = logits + gumbel_noise(key, (n, k), logits.dtype)  # those of the draw
    match = solve(scores)
    moved = scores + 0.01 * jax.random.normal(keys[1], (n, k))
    other = logits + noise(keys[2])
    calls = {
        "noise": lambda: jax.block_until_ready(noise(key)),
        "solve": lambda: jax.block_until_ready(solve(scores)),
        "distances": lambda: jax.block_until_ready(distances(scores, match.assignment)),
        "draw": lambda: jax.block_until_ready(draw(logits, key)),
        "moved, cold": lambda: jax.block_until_ready(solve(moved)),
        "moved, warm": lambda: jax.block_until_ready(warm(moved, match.prices)),
        "new noise, cold": lambda: jax.block_until_ready(solve(other)),
        "new noise, warm": lambda: jax.block_until_ready(warm(other, match.prices)),
    }
    median = seconds(calls, DRAW_REPEATS * repeats, f"draw ({n}, {k})")
    ratios = {"draw_over_solve": median["draw"] / median["solve"], "draw_over_noise": median["draw"] / median["noise"]}
    return {"n": n, "k": k, "seconds": median, **ratios}


def batch_row(size: int, n: int, k: int, repeats: int, seed: int, on_gpu: bool) -> dict[str, Any]:
    """A batch of problems in one call, beside one problem alone and a loop over SciPy."""
    capacity = n // k
    problems = np.stack([family("random", n, k, seed + i) for i in range(size)])
    on_device = jnp.asarray(problems)
    first = on_device[0]
    solve = jax.jit(lambda s: solve_matching(s, capacity))
    calls: dict[str, Callable[[], Any]] = {
        "batch": lambda: jax.block_until_ready(solve(on_device)),
        "one alone": lambda: jax.block_until_ready(solve(first)),
    }
    if not on_gpu:
        calls["SciPy loop"] = lambda: [scipy_total(scores, capacity) for scores in problems]
        calls["POT loop"] = lambda: [peers.pot_total(scores, capacity) for scores in problems]
    median = seconds(calls, repeats, f"batch {size} x ({n}, {k})")
    return {"size": size, "n": n, "k": k, "seconds": median, "per_problem": median["batch"] / size}


def exponent(rows: list[dict[str, Any]], name: str, k: int, solver: str) -> float | None:
    """Slope of log time against log n from 4096 on."""
    picked = [(r["n"], r["seconds"][solver]) for r in rows if (r["family"], r["k"]) == (name, k) and r["n"] >= 4096]
    if len(picked) < 2:
        return None
    sizes, times = np.log(np.asarray(picked)).T
    return float(np.polyfit(sizes, times, 1)[0])


def main() -> None:
    """Time what is missing, write it down, draw the picture."""
    parser = argparse.ArgumentParser(description="Exact matching against its peers.")
    parser.add_argument("--sizes", default=SIZES, help="comma-separated n x k")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="keep the rows that the last run has written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()

    on_gpu = jax.default_backend() != "cpu"
    path = args.out / "matching.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {
        "machine": {**machine(), **({} if on_gpu else peers.versions())},
        "settings": {"repeats": args.repeats, "seed": args.seed, "warm_up": WARM_UP},
        "rows": [],
        "draws": [],
        "batch": None,
    }
    if args.resume and path.exists():
        table = json.loads(path.read_text())

    def save() -> None:
        write_json(path, table)

    sizes = [tuple(int(part) for part in size.split("x")) for size in args.sizes.split(",")]
    done = {(row["n"], row["k"], row["family"]) for row in table["rows"]}
    for n, k in sizes:
        for name in args.families.split(","):
            if (n, k, name) in done:
                continue
            row = solver_row(name, n, k, args.repeats, args.seed, on_gpu)
            table["rows"].append(row)
            save()
            times = "  ".join(f"{solver} {1e3 * value:.2f}" for solver, value in row["seconds"].items())
            print(f"{name:10} {n:6} {k:3}  ms: {times}  steps {row['steps']}", flush=True)
    for n, k in sizes:
        if k > 2 and (n, k) not in {(row["n"], row["k"]) for row in table["draws"]}:
            table["draws"].append(draw_row(n, k, args.repeats, args.seed))
            save()
    table["batch"] = table["batch"] or batch_row(*BATCH, args.repeats, args.seed, on_gpu)
    growth = {
        solver: exponent(table["rows"], "random", 64, solver) for solver in ((OURS,) if on_gpu else (OURS, "POT"))
    }
    table["exponent_in_n_at_64_experts"] = growth
    save()
    if not on_gpu:
        picture(table["rows"], args.images / "matching_speed.png")


if __name__ == "__main__":
    main()
