"""Whether to compare a datapoint's experts with each other: the noise of the router's gradient on the regions.

    python -m benchmarks.comparing_experts [--seed 0] [--steps 500 8000] [--draws 1000]
                                           [--out docs/results/comparing_experts.json]

At parameters of `benchmarks.estimators`, early and trained, one batch drawn many times with two to four experts for
every datapoint: the trace of the covariance of the router's gradient by single experts with each baseline, and with
`pairs=True`, in which all baselines but a student's cancel. Prints a Markdown table.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.estimators import BATCH, MEAN, STUDENT, K, flat, trained
from gumbel_moe._whole_file import write_json
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import IndependentRouter, SkipRouter
from models.regions import RegionsMixture


def ways(model: RegionsMixture, states: dict[str, Any], x: Array, y: Array) -> dict[str, tuple[Array | None, bool]]:
    """By column, a baseline and whether pairs are compared; the true losses are what no estimator has."""
    true_mean = jnp.sum(jax.nn.softmax(model.logits(x)) * model.all_losses(x, y), axis=1)
    student = STUDENT.baseline(states["student"], x, lambda outputs: model.losses(outputs, y))
    return {
        "no baseline": (None, False),
        "running mean": (MEAN.baseline(states["mean"]), False),
        "true mean of the datapoint": (true_mean, False),
        "pairs": (None, True),
        "student": (student, False),
        "student, pairs": (student, True),
    }


def traces(
    router: Any, model: RegionsMixture, x: Array, y: Array, named: dict[str, tuple[Array | None, bool]], keys: Array
) -> dict[str, float]:
    """Of the router's parameters, by the name of the way."""

    def one(key: Array) -> dict[str, Array]:
        def loss(model: RegionsMixture, baseline: Array | None, pairs: bool) -> Array:
            outputs, routing, _ = model(key, x, router, each=True)
            losses = jax.vmap(lambda outputs: model.losses(outputs, y), 1, 1)(outputs)
            return score_function_loss(routing, losses, baseline, pairs=pairs)  # pyright: ignore

        return {name: flat(jax.grad(loss)(model, *way).router_network) for name, way in named.items()}

    drawn = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=50))(keys)
    return {name: float(jnp.sum(jnp.var(drawn[name], axis=0, ddof=1))) for name in named}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 8000])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/comparing_experts.json"))
    args = parser.parse_args()
    keys, rows = jax.random.split(jax.random.key(args.seed), args.draws), []
    for steps in args.steps:
        model, states, (x, y) = trained(args.seed, steps)
        named = ways(model, states, x, y)
        if not rows:
            print(f"| steps | process | experts | {' | '.join(named)} |\n|---|---|---|{'---|' * len(named)}")
        for m in (2, 3, 4):
            independent = IndependentRouter(experts_per_datapoint=m)
            skip = SkipRouter(BATCH * m // K, experts_per_datapoint=m)
            for process, router in {"independent": independent, "skip": skip}.items():
                found = traces(router, model, x, y, named, keys)
                rows.append({"steps": steps, "process": process, "experts": m, **found})
                cells = " | ".join(f"{value:.3g}" for value in found.values())
                print(f"| {steps:,} | {process} | {m} | {cells} |", flush=True)
    write_json(args.out, {"seed": args.seed, "draws": args.draws, "rows": rows})


if __name__ == "__main__":
    main()
