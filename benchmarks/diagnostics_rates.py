"""How often `check_unbiased` fails an unbiased estimator, and how often it finds the bias that it calls detectable.

    python -m benchmarks.diagnostics_rates [--runs 400] [--biased 100] [--out benchmarks/results/diagnostics_rates.json]
                                           [--table]

Every run has its own key and the false-fail rate 0.01. Uniform and normal draws, nearly equal coordinates, and the two
processes: random losses and logits for 4 experts with c places each and 4c datapoints, so that the weights of
Gumbel-Matching have a heavier tail the smaller c is. With `--table`, only prints what was written before, in Markdown.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from scipy.stats import binom
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.diagnostics import UnbiasedReport, check_unbiased
from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.routing import GumbelMatchingRouter, Routing, SkipRouter

RATE = 0.01
EXPERTS = 4

Case = tuple[Callable[[Array], Array], Array]
"""An estimator and the gradient that its mean is."""


def normal() -> Case:
    """Four hundred independent coordinates of different sizes."""
    return jax.jit(lambda key: jax.random.normal(key, (400,)) * jnp.linspace(0.5, 2, 400)), jnp.zeros(400)


def uniform() -> Case:
    """Six independent coordinates."""
    return jax.jit(lambda key: jax.random.uniform(key, (6,))), jnp.full(6, 0.5)


def correlated() -> Case:
    """Fifty coordinates that are nearly one."""

    def estimate(key: Array) -> Array:
        first, second = jax.random.split(key)
        return jax.random.normal(first) + 0.3 * jax.random.normal(second, (50,))

    return jax.jit(estimate), jnp.zeros(50)


def process(router: Callable[[Array, Array], Routing], places: int) -> Case:
    """The gradient in the logits."""
    first, second = jax.random.split(jax.random.key(places))
    logits = jax.random.normal(first, (EXPERTS * places, EXPERTS))
    losses = jax.random.normal(second, logits.shape)

    def loss(logits: Array, key: Array) -> Array:
        routing = router(key, logits)
        return score_function_loss(routing, jnp.take_along_axis(losses, routing.expert[:, None], axis=1)[:, 0])

    return jax.jit(lambda key: jax.grad(loss)(logits, key)), jax.grad(exact_loss)(logits, losses)


CASES: dict[str, Callable[[], Case]] = {
    "uniform": uniform,
    "normal": normal,
    "correlated": correlated,
    **{f"gumbel_matching, c = {c}": lambda c=c: process(GumbelMatchingRouter(c, floor=0), c) for c in (1, 2, 4, 8)},
    **{f"skip, c = {c}": lambda c=c: process(SkipRouter(c), c) for c in (1, 2, 4, 8)},
}


def measure(name: str, draws: int, runs: int, biased_runs: int) -> dict[str, Any]:
    """Runs without a bias, and some with the one called detectable, in the coordinate that varies most."""
    estimate, exact = CASES[name]()

    def run(seed: int, exact: Array = exact) -> UnbiasedReport:
        return check_unbiased(estimate, exact, jax.random.key(seed), draws, false_fail_rate=RATE, keep=2)

    wanted = run(runs).summary["detectable"].to_numpy()
    biased = exact.ravel().at[wanted.argmax()].add(wanted.max()).reshape(exact.shape)
    plain = [run(seed) for seed in range(runs)]
    return {
        "case": name,
        "coordinates": exact.size,
        "draws": 4 * draws,
        "runs": runs,
        "failed": sum(not report.passed for report in plain),
        "failed_coordinates": sum(bool(report.max_z > report.limit) for report in plain),
        "failed_together": sum(bool(report.spread_z > report.spread_limit) for report in plain),
        "biased_runs": biased_runs,
        "found": sum(not run(seed, biased).passed for seed in range(biased_runs)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| estimator | coordinates | draws | failed | detectable bias found |", "|---|---|---|---|---|"]
    for row in rows:
        shares = [f"{row['failed'] / row['runs']:.1%} ({row['failed']} of {row['runs']})"]
        shares.append(f"{row['found']} of {row['biased_runs']}")
        lines.append(f"| {row['case']} | {row['coordinates']} | {row['draws']:,} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Error rates of check_unbiased.")
    parser.add_argument("--runs", type=int, default=400, help="without a bias")
    parser.add_argument("--biased", type=int, default=100, help="with one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/diagnostics_rates.json"))
    parser.add_argument("--table", action="store_true", help="measure nothing, print")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.out.read_text())["rows"]))
        return
    settings = {"false_fail_rate": RATE, "failures_99.9%": binom.ppf([0.0005, 0.9995], args.runs, RATE).tolist()}
    rows: list[dict[str, Any]] = []
    for name in tqdm(CASES, desc="cases"):
        for draws in (60, 500):
            rows.append(measure(name, draws, args.runs, args.biased))
            write_json(args.out, {"machine": machine(), "settings": settings, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
