"""The noise of the router's gradient with several experts per datapoint, and with pairs of them compared.

    python -m benchmarks.several_experts [--draws 1500] [--seed 0] [--out docs/results/several_experts.json]

Random logits of three scales and random losses of 64 datapoints under 8 experts: for each process, with one, two and
four experts per datapoint and places that just suffice, the trace of the covariance of the gradient in a datapoint's
logits, mean over the datapoints, with each baseline. Prints a Markdown table.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._whole_file import write_json
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter

N, K = 64, 8
SCALES = {"soft": 0.5, "middling": 2.0, "sharp": 5.0}
COLUMNS = ("mean", "datapoint's mean", "table", "pairs", "pairs, table")


def routers(number: int) -> dict[str, Any]:
    """The weighted ones, with places that just suffice."""
    each: dict[str, Any] = {"experts_per_datapoint": number}
    return {
        "independent": IndependentRouter(**each),
        "skip": SkipRouter(N * number // K, **each),
        "Gumbel-Matching": GumbelMatchingRouter(N * number // K, **each),
    }


def traces(router: Any, logits: Array, losses: Array, keys: Array, compare: bool) -> dict[str, float]:
    """Of the gradient with every baseline; also of pairs where they are to be compared."""
    expected = jnp.sum(jax.nn.softmax(logits) * losses, axis=1)
    # As a student might have it: off by a third of the losses' spread.
    table = losses + 0.3 * jnp.std(losses) * jax.random.normal(jax.random.key(9), losses.shape)
    ways = {
        "mean": (jnp.mean(expected), False),
        "datapoint's mean": (expected, False),
        "table": (table, False),
        "pairs": (None, True),
        "pairs, table": (table, True),
    }

    def one(key: Array) -> dict[str, Array]:
        def loss(logits: Array, name: str) -> Array:
            routing = router(key, logits)
            own = jnp.take_along_axis(losses, routing.expert, axis=1)
            baseline, pairs = ways[name]
            return score_function_loss(routing, own, baseline, pairs=pairs)

        return {name: N * jax.grad(loss)(logits, name) for name, (_, pairs) in ways.items() if compare or not pairs}

    drawn = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(keys)
    return {name: float(jnp.sum(jnp.var(rows, axis=0)) / N) for name, rows in drawn.items()}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="The noise of the router's gradient with several experts.")
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/several_experts.json"))
    args = parser.parse_args()
    for_logits, for_losses, for_draws = jax.random.split(jax.random.key(args.seed), 3)
    losses = jax.random.normal(for_losses, (N, K))
    rows = []
    print(f"| router | process | experts | {' | '.join(COLUMNS)} |\n|---|---|---|{'---|' * len(COLUMNS)}")
    for sharpness, scale in SCALES.items():
        logits = scale * jax.random.normal(for_logits, (N, K))
        for number in (1, 2, 4):
            for process, router in routers(number).items():
                found = traces(router, logits, losses, jax.random.split(for_draws, args.draws), number > 1)
                shown = {name: found[name] for name in COLUMNS if name in found}
                rows.append({"router": sharpness, "process": process, "experts": number, **shown})
                cells = [f"{shown[name]:.3g}" if name in shown else "" for name in COLUMNS]
                print(f"| {sharpness} | {process} | {number} | {' | '.join(cells)} |", flush=True)
    write_json(args.out, {"draws": args.draws, "seed": args.seed, "rows": rows})


if __name__ == "__main__":
    main()
