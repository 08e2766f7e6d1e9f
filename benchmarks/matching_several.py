"""Several experts for a datapoint, side by side with peers and with our own time for as many pairs of one expert.

    python -m benchmarks.matching_several [--seed 0] [--out benchmarks/results/matching_several.json] [--quick]

Every solver gets the same scores and equal capacities that are exactly sufficient. OR-tools' min-cost flow has an arc
of one unit for every pair: the same problem. POT with masses of `m` for every row solves the transport without the
limit of one unit for a pair: another problem, whose optimum is no smaller; how much larger is in the table. SciPy's
HiGHS solves the linear program of the flow, where it fits. Each is called a few times in turn; the JSON has medians and
ratios.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import matching_several_peers as peers
from benchmarks._machine import machine
from benchmarks.matching_peers import versions
from benchmarks.matching_problems import family
from gumbel_moe._whole_file import write_json
from gumbel_moe.matching import solve_matching

SIZES, QUICK_SIZES = ((16384, 64), (65536, 64)), ((1024, 16),)
NUMBERS = 2, 8
FAMILIES = "random", "skewed", "clustered"
OURS, OURS_ALONE = "gumbel_moe", "gumbel_moe, one expert"
REPEATS = 3
PATIENCE = 2.0  # seconds: what takes longer is called once


def seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median time of each call; all are called in turn, the slow ones once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name in (OURS, OURS_ALONE):
        calls[name]()  # compiles
    for _ in range(REPEATS):
        for name, call in calls.items():
            if times[name] and times[name][0] > PATIENCE:
                continue
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(some)) for name, some in times.items()}


def row(name: str, n: int, k: int, each: int, seed: int) -> dict[str, Any]:
    """Every solver on one problem: times, ratios, and whether the totals agree."""
    scores, capacity = family(name, n, k, seed), n * each // k
    on_device, as_many = jnp.asarray(scores), jnp.asarray(family(name, n * each, k, seed))
    solve = jax.jit(lambda s: solve_matching(s, capacity, experts_per_datapoint=each))
    alone = jax.jit(lambda s: solve_matching(s, capacity))
    totals: dict[str, float] = {}

    def kept(peer: str, call: Callable[[], float]) -> Callable[[], None]:
        return lambda: totals.update({peer: call()})

    calls: dict[str, Callable[[], Any]] = {
        OURS: lambda: jax.block_until_ready(solve(on_device)),
        OURS_ALONE: lambda: jax.block_until_ready(alone(as_many)),
        **{peer: kept(peer, call) for peer, call in peers.solvers(scores, capacity, each).items()},
    }
    median = seconds(calls)
    match = solve(on_device)
    total = float(np.take_along_axis(np.asarray(scores, np.float64), np.asarray(match.assignment), axis=1).sum())
    exact = {peer: median[peer] for peer in totals if peer != peers.RELAXED}
    return {
        "family": name,
        "n": n,
        "k": k,
        "experts_per_datapoint": each,
        "seconds": median,
        "fastest_exact_peer_over_ours": min(exact.values()) / median[OURS] if exact else None,
        "relaxed_peer_over_ours": median[peers.RELAXED] / median[OURS],
        "ours_over_one_expert": median[OURS] / median[OURS_ALONE],
        "relative_difference": {peer: (totals[peer] - total) / abs(total) for peer in totals},
        "gap_over_range": float(match.gap) / float(np.ptp(scores)),
        "steps": int(match.steps),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in Markdown; times in milliseconds."""
    names = [OURS, OURS_ALONE, *peers.NAMES]
    lines = [
        f"| scores | n | k | m | {' | '.join(names)} | exact peer / ours | ours / one expert | without distinctness |",
        "|" + "---|" * (7 + len(names)),
    ]
    for one in rows:
        times = [one["seconds"].get(name) for name in names]
        peer = one["fastest_exact_peer_over_ours"]
        cells = [one["family"], f"{one['n']:,}", one["k"], one["experts_per_datapoint"]]
        cells += ["-" if t is None else f"{1e3 * t:,.0f}" if t >= 0.01 else f"{1e3 * t:.1f}" for t in times]
        cells += ["-" if peer is None else f"{peer:.1f}", f"{one['ours_over_one_expert']:.2f}"]
        cells.append(f"{one['relative_difference'][peers.RELAXED]:+.1e}")
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def main() -> None:
    """Time every problem, write the JSON after each, print the table."""
    parser = argparse.ArgumentParser(description="Several experts for a datapoint: our matching against its peers.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/matching_several.json"))
    parser.add_argument("--quick", action="store_true", help="one small size")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    settings = {"seed": args.seed, "quick": args.quick, "repeats": REPEATS, "patience_seconds": PATIENCE}
    for n, k in QUICK_SIZES if args.quick else SIZES:
        for each in NUMBERS:
            for name in FAMILIES:
                rows.append(row(name, n, k, each, args.seed))
                write_json(args.out, {"machine": {**machine(), **versions()}, "settings": settings, "rows": rows})
                print(table(rows)[-1], flush=True)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
