"""How to split a fixed number of expert evaluations: a large batch drawn once, or a smaller one drawn several times.

    python -m benchmarks.split_draws [--seed 0] [--steps 500 8000] [--evaluations 512] [--draws 2000]
                                     [--out docs/results/split_draws.json]

At parameters of `benchmarks.estimators`, early and trained: the trace of the gradient's covariance over *fresh batches*
and draws, so that what a larger batch saves counts as well; and of two draws of one *fixed* batch. Every draw is of the
skip process, with places that just suffice. Prints a Markdown table: the router's part with a running mean, with the
other draws where there are some, with a student, and the experts' part.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.estimators import MEAN, STUDENT, K, flat, trained
from gumbel_moe._whole_file import write_json
from gumbel_moe.estimators import leave_one_out, score_function_loss
from gumbel_moe.routing import Routing, SkipRouter, draw_without_replacement
from models.data import Regions, make_regions
from models.regions import RegionsMixture

COLUMNS = ("running mean", "other draws", "student", "experts")


def independently(key: Array, logits: Array, num_draws: int) -> Routing:
    """Draws of the skip process."""
    return jax.vmap(SkipRouter(logits.shape[0] // K), (0, None))(jax.random.split(key, num_draws), logits)


def without_replacement(key: Array, logits: Array, num_draws: int) -> Routing:
    """The same, but a datapoint meets different experts."""
    return draw_without_replacement(key, logits, num_draws, capacity=logits.shape[0] // K)


WAYS = (independently, without_replacement)
SPLITS = [
    (1, independently, False),
    *((m, way, False) for m in (2, 4) for way in WAYS),
    *((2, way, True) for way in WAYS),
]


def measure(
    teacher: Regions,
    model: RegionsMixture,
    states: dict[str, Any],
    batch_size: int,
    num_draws: int,
    draw: Callable[..., Routing],
    repeats: int,
    key: Array,
    fixed: bool = False,
) -> dict[str, float | None]:
    """Traces over batches and draws, or over draws of one batch."""

    def one(key: Array) -> dict[str, Array]:
        for_batch, for_draws = jax.random.split(key)
        x, y = teacher.sample(jax.random.key(0) if fixed else for_batch, batch_size)

        def loss(model: RegionsMixture, name: str) -> Array:
            routings = draw(for_draws, model.logits(x), num_draws)
            losses = jax.vmap(lambda expert: model.losses(model.outputs_of(x, expert), y))(routings.expert)
            if name == "other draws":
                baseline = leave_one_out(routings.weight, losses)
            elif name == "student":
                baseline = STUDENT.baseline(states["student"], x, lambda outputs: model.losses(outputs, y))
                baseline = jnp.broadcast_to(baseline, (num_draws, *baseline.shape))
            else:
                baseline = jnp.broadcast_to(MEAN.baseline(states["mean"]), (num_draws,))
            return jnp.mean(jax.vmap(score_function_loss)(routings, losses, baseline))

        names = [name for name in COLUMNS[:3] if name != "other draws" or (draw is independently and num_draws > 1)]
        gradients = {name: eqx.filter_grad(partial(loss, name=name))(model) for name in names}
        found = {name: flat(gradient.router_network) for name, gradient in gradients.items()}
        return {**found, "experts": flat(gradients["running mean"].experts)}

    drawn = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=20))(jax.random.split(key, repeats))
    traces = {name: float(jnp.sum(jnp.var(rows, axis=0, ddof=1))) for name, rows in drawn.items()}
    return {name: traces.get(name) for name in COLUMNS}


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="How to split a fixed number of expert evaluations.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 8000])
    parser.add_argument("--evaluations", type=int, default=512)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/split_draws.json"))
    args = parser.parse_args()
    teacher = make_regions(jax.random.split(jax.random.key(args.seed), 5)[0])  # that of the training
    rows = []
    for steps in args.steps:
        model, states, _ = trained(args.seed, steps)
        for num_draws, draw, fixed in SPLITS:
            size, key = args.evaluations // num_draws, jax.random.key(9)
            found = measure(teacher, model, states, size, num_draws, draw, args.draws, key, fixed)
            how = draw.__name__.replace("_", " ") + (", a fixed batch" if fixed else "")
            rows.append({"steps": steps, "draws": num_draws, "how": how, **found})
    settings = {"seed": args.seed, "evaluations": args.evaluations, "draws": args.draws}
    write_json(args.out, {**settings, "rows": rows})
    print(f"| steps | draws of a batch | how | {' | '.join(COLUMNS)} |\n|---|---|---|{'---|' * len(COLUMNS)}")
    for row in rows:
        cells = [f"{row[name]:.3g}" if row[name] is not None else "" for name in COLUMNS]
        print(f"| {row['steps']:,} | {row['draws']} | {row['how']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
