"""What the first call costs before it computes: tracing, lowering and compiling the library's programs.

    python -m benchmarks.compile_times [--size 256x8] [--out benchmarks/results/compile_times.json]

Seconds of processor time, which other programs on the machine hardly change. Each program is compiled anew, without
JAX's cache on the disk, once with the compiled solver and once without; each way has a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import ROUTERS, make_router

_SWITCH = "GUMBEL_MOE_COMPILED"


def programs(n: int, k: int) -> dict[str, Callable[[Array, Array], object]]:
    """Functions of a key and logits `(n, k)`."""

    def gradient(name: str) -> Callable[[Array, Array], object]:
        def loss(logits: Array, key: Array) -> Array:
            routing = make_router(name, n // k)(key, logits)
            return score_function_loss(routing, jnp.arange(n, dtype=logits.dtype))

        return lambda key, logits: jax.value_and_grad(loss)(logits, key)

    def log_prob(key: Array, logits: Array) -> Array:
        matching = GumbelMatching(logits, n // k, validate_args=False)
        return matching.log_prob(matching.sample(key))

    weighted = [name for name, entry in ROUTERS.items() if entry.kind == "weighted"]
    routed = [name for name, entry in ROUTERS.items() if entry.kind != "uncorrected" and not entry.stateful]
    return {
        "a matching": lambda key, logits: solve_matching(logits, n // k),
        **{f"{name}: a routing": make_router(name, n // k) for name in routed},
        **{f"{name}: value and gradient": gradient(name) for name in weighted},
        "a draw of Gumbel-Matching and its log-probability": log_prob,
    }


def measure(n: int, k: int) -> dict[str, float]:
    """Seconds for each program, in this process."""
    key, logits = jax.random.key(0), jax.random.normal(jax.random.key(1), (n, k))
    jax.jit(lambda x: x + 1).lower(logits).compile()  # what the first of all programs brings up
    seconds = {}
    for name, program in programs(n, k).items():
        jax.clear_caches()
        begin = time.process_time()
        jax.jit(program).lower(key, logits).compile()
        seconds[name] = time.process_time() - begin
    return seconds


def main() -> None:
    """Both ways, as a table and as JSON."""
    parser = argparse.ArgumentParser(description="Compile times.")
    parser.add_argument("--size", default="256x8", help="n x k")
    parser.add_argument("--out", default="benchmarks/results/compile_times.json")
    parser.add_argument("--alone", action="store_true", help="this process's way alone, printed as JSON")
    args = parser.parse_args()
    n, k = (int(part) for part in args.size.split("x"))
    if args.alone:
        print(json.dumps(measure(n, k)))
        return
    found: dict[str, dict[str, float]] = {}
    for way, switch in {"with the compiled solver": "1", "in JAX alone": "0"}.items():
        command = [sys.executable, "-m", "benchmarks.compile_times", "--size", args.size, "--alone"]
        environment = {**os.environ, _SWITCH: switch, "JAX_ENABLE_COMPILATION_CACHE": "false"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found[way] = json.loads(done.stdout)
    print(f"| program, ({n}, {k}) | {' | '.join(f'{way} (s)' for way in found)} |")
    print("|---|" + "---|" * len(found))
    for name in next(iter(found.values())):
        print(f"| {name} | {' | '.join(f'{seconds[name]:.2f}' for seconds in found.values())} |")
    write_json(args.out, {"machine": machine(), "n": n, "k": k, "seconds": found})


if __name__ == "__main__":
    main()
