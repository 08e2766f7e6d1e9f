"""What a GPU computes and how fast: checks against SciPy and the host's CPU, then timings. Made for any device of JAX.

    python -m benchmarks.gpu --out FILE.json [--seed 0] [--small] [--seconds 220]

Needs the `bench` extra, of which SciPy and tqdm suffice. Most of the time goes to compilation, which runs on all
cores, size by size. What is not compiled when `--seconds` are over is left out of the timings and listed as skipped;
the checks are all made. Everything is written after every step. The exit status is 1 if a check or a program failed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import gumbel_moe
from benchmarks import gpu_checks, gpu_timings
from benchmarks._machine import machine
from benchmarks.gpu_checks import Cases
from benchmarks.gpu_timings import Layer, Program
from gumbel_moe._whole_file import write_json

Row = dict[str, Any]


class Plan(NamedTuple):
    """What is checked and timed."""

    cases: Cases
    sizes: tuple[tuple[int, int], ...]
    layer: Layer
    repeats: int


FULL = Plan(
    Cases(
        scipy=((1024, 16), (256, 2)),
        cpu=((16384, 64), (65536, 64)),
        draws=((1024, 16), (16384, 64)),
        log_prob=((1024, 2), (1023, 3), (1024, 8), (1024, 16)),
        weights=(64, 8),
        weights_draws=2000,
    ),
    sizes=((1024, 16), (4096, 64), (16384, 64), (65536, 64)),
    layer=Layer(256, 512),
    repeats=20,
)
SMALL = Plan(
    Cases(
        scipy=((12, 3),),
        cpu=((12, 3),),
        draws=((12, 3),),
        log_prob=((12, 2),),
        weights=(12, 3),
        weights_draws=500,
    ),
    sizes=((12, 3),),
    layer=Layer(4, 8),
    repeats=3,
)


class Clock:
    """How much of the time is left, and whether one more compilation fits in."""

    def __init__(self, seconds: float) -> None:
        self.start, self.seconds, self.longest = time.perf_counter(), seconds, 0.0

    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def fits(self) -> bool:
        """Whether as long as the longest compilation so far is left."""
        return self.spent() + self.longest < self.seconds


def in_threads(calls: dict[str, Callable[[], Any]], label: str) -> Iterator[tuple[str, Any]]:
    """What calls return, as they end, or the error that they raised: XLA compiles on as many cores as it may."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        names = {pool.submit(call): name for name, call in calls.items()}
        for future in tqdm(as_completed(names), total=len(names), desc=label):
            error = future.exception()
            yield names[future], future.result() if error is None else error


def failure(error: Exception) -> Row:
    """What is noted of a check or a program that raised."""
    return {"error": f"{type(error).__name__}: {error}", "passed": False}


def writable(row: Row) -> Row:
    """A row with words for the numbers that JSON has not."""
    return {key: str(x) if isinstance(x, float) and not np.isfinite(x) else x for key, x in row.items()}


def run_checks(cases: Cases, seed: int) -> Iterable[list[Row]]:
    """The rows of one check after the other."""
    for name, rows in in_threads(dict(gpu_checks.checks(cases, seed)), "checks"):
        yield [{"check": name, **failure(rows)}] if isinstance(rows, Exception) else rows


def run_timings(n: int, k: int, plan: Plan, seed: int, clock: Clock) -> Iterator[Row]:
    """The rows of one size: all programs compiled at once, then timed one by one while nothing else runs."""

    def compile_in_time(program: Program) -> Any:
        if not clock.fits():
            return None
        call, seconds = gpu_timings.compile_one(program)
        clock.longest = max(clock.longest, seconds)
        return call, seconds

    programs = gpu_timings.programs(n, k, plan.layer, seed)
    calls = {name: lambda program=program: compile_in_time(program) for name, program in programs.items()}
    results = dict(in_threads(calls, f"compile ({n}, {k})"))
    for name in tqdm(programs, desc=f"time ({n}, {k})"):
        row, result = {"program": name, "n": n, "k": k}, results[name]
        if isinstance(result, Exception):
            yield {**row, **failure(result)}
        elif result is None or clock.spent() > clock.seconds:
            yield {**row, "skipped": "out of time"}
        else:
            call, seconds = result
            try:
                yield {**row, **gpu_timings.time_one(call, plan.repeats), "compile_seconds": seconds}
            except jax.errors.JaxRuntimeError as error:  # no memory, for instance
                yield {**row, **failure(error)}


def described() -> Row:
    """The machine, and what decides about numbers."""
    return {
        **machine(),
        "platform": jax.devices()[0].platform,
        "jaxlib": version("jaxlib"),
        "gumbel_moe": gumbel_moe.__version__,
        "default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Check, time, write; 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Checks and timings on a GPU.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="tiny shapes: a rehearsal")
    parser.add_argument("--seconds", type=float, default=220, help="after which no more is timed")
    args = parser.parse_args(arguments)

    clock, plan = Clock(args.seconds), SMALL if args.small else FULL
    settings = {"seed": args.seed, "small": args.small, "seconds": args.seconds}
    checks: list[Row] = []
    timings: list[Row] = []

    def save(finished: bool = False) -> bool:
        passed = all(row.get("passed", True) for row in [*checks, *timings])
        state = {"finished": finished, "passed": passed, "seconds": clock.spent()}
        write_json(
            args.out, {"machine": described(), "settings": settings, **state, "checks": checks, "timings": timings}
        )
        return passed

    for rows in run_checks(plan.cases, args.seed):
        checks.extend(writable(row) for row in rows)
        save()
    for n, k in plan.sizes:
        for row in run_timings(n, k, plan, args.seed, clock):
            timings.append(row)
            save()
    passed = save(finished=True)
    for row in [*checks, *timings]:
        if not row.get("passed", True):
            print(f"failed: {row}", file=sys.stderr)
    print(f"{'passed' if passed else 'FAILED'} on {jax.devices()[0].device_kind}, {clock.spent():.0f} s: {args.out}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
