"""How long `check_unbiased` takes and how much memory it needs, at 1,000 and at 10,000 draws.

    python -m benchmarks.diagnostics [--out benchmarks/results/diagnostics.json]

Cases: the gradient of the digits model (8 experts, batches of 256, capacity 32) by skip and by Gumbel-Matching, and a
made-up gradient of a million coordinates that costs next to nothing. Every row is a process of its own, since a process
never gives back its peak of memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.routing import GumbelMatchingRouter, Routing, SkipRouter, combine, dispatch
from models.data import load_digits_split
from models.digits import DigitsMixture

DRAWS = (1_000, 10_000)
CHAINS = 4
CAPACITY = 32

Case = tuple[Callable[[Array], Any], Any]
"""An estimator and the gradient that its mean should be."""


def digits(router: Callable[[Array, Array], Routing]) -> Case:
    """What a training step computes, its gradient by the experts that were drawn."""
    data = load_digits_split(0)
    x, y = data.train_x[:256], data.train_y[:256]
    model = DigitsMixture(jax.random.key(1))

    def loss(model: DigitsMixture, key: Array) -> Array:
        routing = router(key, model.logits(x))
        outputs = combine(model.expert_outputs(dispatch(x, routing, CAPACITY)), routing)
        return score_function_loss(routing, model.losses(outputs, y), 2.3)

    exact = jax.grad(lambda model: exact_loss(model.logits(x), model.all_losses(x, y)))(model)
    return lambda key: jax.grad(loss)(model, key), exact


def million() -> Case:
    """An outer product of normal draws, a thousand by a thousand."""

    def estimate(key: Array) -> Array:
        left, right = jax.random.normal(key, (2, 1000))
        return jnp.outer(left, right)

    return estimate, jnp.zeros((1000, 1000))


CASES: dict[str, Callable[[], Case]] = {
    "digits_skip": lambda: digits(SkipRouter(CAPACITY)),
    "digits_gumbel_matching": lambda: digits(GumbelMatchingRouter(CAPACITY, floor=0)),
    "million": million,
}


def measure(case: str, draws: int) -> dict[str, Any]:
    """One row: the first call compiles."""
    estimate, exact = CASES[case]()
    compiled = jax.jit(estimate)
    start = time.perf_counter()
    report = check_unbiased(compiled, exact, jax.random.key(0), draws // CHAINS, CHAINS)
    seconds = time.perf_counter() - start
    return {
        "case": case,
        "coordinates": len(report.evidence.exact),
        "draws": draws,
        "seconds": round(seconds, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "passed": report.passed,
        "max_z": round(report.max_z, 2),
        "detectable_bias": report.detectable_bias,
    }


def main() -> None:
    """Measure everything, or one row for the process that asks for it."""
    parser = argparse.ArgumentParser(description="Time and memory of check_unbiased.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/diagnostics.json"))
    parser.add_argument("--case", choices=CASES, help="one case only, printed and not written")
    parser.add_argument("--draws", type=int, default=DRAWS[0], help="for --case")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.draws)))
        return
    rows = []
    for case in CASES:
        for draws in DRAWS:
            command = [sys.executable, "-m", "benchmarks.diagnostics", "--case", case, "--draws", str(draws)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout))
            print(rows[-1], flush=True)
    write_json(args.out, {"machine": machine(), "chains": CHAINS, "rows": rows})


if __name__ == "__main__":
    main()
