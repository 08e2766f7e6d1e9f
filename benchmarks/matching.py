"""Exact capacitated matching side by side with its peers, in one run: medians of interleaved repetitions.

    python -m benchmarks.matching [--sizes 1024x16,16384x64] [--repeats 15] [--seed 0] [--out benchmarks/results]

Every solver gets the same scores (normal logits of scale 1 or 3 plus Gumbel noise, or the harder families) and the same
equal capacities. POT's `ot.emd` gets a large `numItermax`: its default stops early without an optimum. Compile time is
left out and reported on its own. The last columns time a full draw of `GumbelMatching` with its conditionals.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import ot
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.matching import solve_matching

SCIPY_LIMIT = 2048  # expanded columns: n x n
FAMILIES = ("random", "random3", "skewed", "ties", "clustered")


def family(name: str, n: int, k: int, seed: int) -> np.ndarray:
    """Logits plus Gumbel noise, or harder scores, `(n, k)` float32."""
    rng = np.random.default_rng(seed)
    normal, gumbel = rng.normal(size=(n, k)), rng.gumbel(size=(n, k))
    match name:
        case "random":
            scores = normal + gumbel
        case "random3":
            scores = 3 * normal + gumbel
        case "skewed":
            scores = normal + 3 * rng.normal(size=k) + gumbel
        case "ties":
            scores = rng.integers(0, 10, size=(n, k))
        case "clustered":
            scores = rng.normal(size=(10, k))[rng.integers(0, 10, size=n)] + 1e-3 * normal
        case _:
            raise ValueError(f"family must be one of {FAMILIES}, got {name!r}")
    return np.asarray(scores, np.float32)


def solvers(scores: np.ndarray, capacity: int) -> dict[str, Callable[[], float]]:
    """Name to a call that solves the problem and returns the total score."""
    n, k = scores.shape
    on_device = jnp.asarray(scores)
    double = np.asarray(scores, np.float64)
    solve = jax.jit(lambda s: solve_matching(s, capacity))
    draw = jax.jit(lambda a, key: GumbelMatching(a, capacity).sample_with_conditionals(key))
    noise = jax.jit(lambda key: jax.random.gumbel(key, (n, k)))
    key = jax.random.key(0)
    supply, demand, costs = np.ones(n), np.full(k, float(capacity)), -double

    def emd() -> float:
        _, log = ot.emd(supply, demand, costs, numItermax=10**9, log=True)
        if log["warning"] is not None:
            raise RuntimeError(log["warning"])
        return -float(log["cost"])

    def scipy() -> float:
        expanded = np.repeat(double, capacity, axis=1)
        row, column = linear_sum_assignment(expanded, maximize=True)
        return float(expanded[row, column].sum())

    calls: dict[str, Callable[[], float]] = {
        "gumbel_moe": lambda: float(solve(on_device).value),
        "POT emd": emd,
        "full draw": lambda: float(jax.block_until_ready(draw(on_device, key))[0][0]),
        "noise alone": lambda: float(jax.block_until_ready(noise(key))[0, 0]),
    }
    if n <= SCIPY_LIMIT:
        calls["SciPy expanded"] = scipy
    return calls


def measure(name: str, n: int, k: int, repeats: int, seed: int) -> dict:
    """One row: median seconds of every solver on one problem, interleaved."""
    scores = family(name, n, k, seed)
    calls = solvers(scores, n // k)
    first, values, seconds = {}, {}, {call: [] for call in calls}
    for label, call in calls.items():
        start = time.perf_counter()
        values[label] = call()
        first[label] = time.perf_counter() - start
    for _ in tqdm(range(repeats), desc=f"{name} ({n}, {k})", leave=False):
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[label].append(time.perf_counter() - start)
    median = {label: float(np.median(times)) for label, times in seconds.items()}
    match = solve_matching(scores, n // k)
    exact = float(np.asarray(scores, np.float64)[np.arange(n), match.assignment].sum())
    return {
        "family": name,
        "n": n,
        "k": k,
        "seconds": median,
        "first_call_seconds": first["gumbel_moe"],
        "times_faster_than_pot": median["POT emd"] / median["gumbel_moe"],
        "draw_over_solve": median["full draw"] / median["gumbel_moe"],
        "relative_difference_to_pot": abs(exact - values["POT emd"]) / abs(values["POT emd"]),
        "gap_over_range": float(match.gap) / float(np.ptp(scores)),
        "steps": int(match.steps),
    }


def main() -> None:
    """Run the table, print it, write it as JSON."""
    parser = argparse.ArgumentParser(description="Exact matching against POT and SciPy.")
    parser.add_argument("--sizes", default="1024x16,4096x64,16384x64", help="comma-separated n x k")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()

    rows = []
    for size in args.sizes.split(","):
        n, k = (int(part) for part in size.split("x"))
        for name in args.families.split(","):
            row = measure(name, n, k, args.repeats, args.seed)
            rows.append(row)
            times = "  ".join(f"{label} {1e3 * value:9.2f}" for label, value in row["seconds"].items())
            print(f"{name:10} {n:6} {k:3}  {times} ms  vs POT {row['times_faster_than_pot']:6.1f}x", flush=True)
    table = {"machine": {**machine(), "pot": ot.__version__}, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    args.out.joinpath("matching.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
