"""Peak resident memory of one matching, beyond what the process held before it, in units of the size of the scores.

    python -m benchmarks.matching_memory [--size 65536x64] [--families random,ties] [--seed 0]

XLA does not report what the compiled solver takes. Every family has a process of its own. Needs Linux.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.matching_problems import FAMILIES, family
from gumbel_moe.matching import solve_matching

_STATUS = Path("/proc/self/status")


def _status(field: str) -> int:
    """A field of the kernel's account of this process, in bytes."""
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(lines[0].split()[1])


def measure(name: str, n: int, k: int, seed: int) -> float:
    """Peak during the first call of a compiled program, over the size of the scores."""
    scores = jnp.asarray(family(name, n, k, seed))
    solve = jax.jit(lambda s: solve_matching(s, n // k)).lower(scores).compile()
    jax.block_until_ready(solve_matching(scores[:k], 1))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    jax.block_until_ready(solve(scores))
    return (_status("VmHWM") - before) / scores.nbytes


def main() -> None:
    """Print one ratio per family."""
    parser = argparse.ArgumentParser(description="Memory of the matching.")
    parser.add_argument("--size", default="65536x64", help="n x k")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    n, k = (int(part) for part in args.size.split("x"))
    names = args.families.split(",")
    if len(names) == 1:
        print(f"{names[0]}: {measure(names[0], n, k, args.seed):.2f} times the scores", flush=True)
        return
    for name in names:
        same = ["--size", args.size, "--families", name, "--seed", str(args.seed)]
        subprocess.run([sys.executable, "-m", "benchmarks.matching_memory", *same], check=True)


if __name__ == "__main__":
    main()
