"""Whose gradient is biased: ways to train a router from the literature, each tested against the enumerated gradient.

    python -m benchmarks.biased_gradients [--draws 4000] [--seed 0] [--out benchmarks/results/biased_gradients.json]

The objective is the expected loss of one expert drawn by the router, `1/n sum_ij p_ij f(h_ij)`; its parameters are the
logits `(n, k)` and the experts' outputs `(n, k, classes)`, so that nothing else is between a method and its gradient.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from benchmarks._machine import machine
from benchmarks.biased_gradients_methods import METHODS, Loss
from benchmarks.biased_gradients_picture import picture
from gumbel_moe._whole_file import write_json
from gumbel_moe.diagnostics import UnbiasedReport, check_unbiased
from gumbel_moe.estimators import exact_loss

N, K, CLASSES = 32, 4, 3
Params = dict[str, Array]


class Problem(NamedTuple):
    """Parameters, and the loss of an output `(n, classes)` for every datapoint."""

    params: Params
    loss: Loss


def problems(seed: int) -> dict[str, Problem]:
    """The same outputs with two losses; the router likes the first expert, and outputs have opinions."""
    for_logits, for_outputs, for_labels = jax.random.split(jax.random.key(seed), 3)
    labels = jax.random.randint(for_labels, (N,), 0, CLASSES)
    target = jax.nn.one_hot(labels, CLASSES)
    params = {
        "router": jax.random.normal(for_logits, (N, K)) + jnp.array([1.0, 0.0, 0.0, 0.0]),
        "experts": 2 * jax.random.normal(for_outputs, (N, K, CLASSES)),
    }
    return {
        "cross-entropy": Problem(params, lambda h: -jnp.sum(target * jax.nn.log_softmax(h), axis=-1)),
        "squared error": Problem(params, lambda h: jnp.sum((h - target) ** 2, axis=-1)),
    }


def objective(problem: Problem) -> Callable[[Params], Array]:
    """Enumerated."""
    each = jax.vmap(problem.loss, in_axes=1, out_axes=1)  # (n, k, classes) -> (n, k)
    return lambda params: exact_loss(params["router"], each(params["experts"]))


def parts(report: UnbiasedReport) -> dict[str, dict[str, float | None]]:
    """Of router and experts: the norm of the bias over that of the gradient, the draws' own noise taken out, and the
    cosine of the angle between the mean and the exact gradient, None where the mean is 0.
    """
    table: pd.DataFrame = report.summary
    found = {}
    for part in ("router", "experts"):
        own = table.index.str.startswith(part)
        mean, exact, error = (table[name].to_numpy()[own] for name in ("mean", "exact", "se"))
        length = float(np.linalg.norm(exact))
        squared = float(np.sum((mean - exact) ** 2) - np.sum(error**2))
        product = float(np.linalg.norm(mean)) * length
        found[part] = {
            "bias": max(0.0, squared) ** 0.5 / length,
            "noise": float(np.sum(error**2)) ** 0.5 / length,
            "cosine": float(mean @ exact) / product if product else None,
        }
    return found


def measure(problem: Problem, draws: int, seed: int) -> list[dict[str, Any]]:
    """A row for each method."""
    exact = jax.jit(jax.grad(objective(problem)))(problem.params)
    rows = []
    for name, method in METHODS.items():
        surrogate = method.make(problem.params["router"], problem.loss)
        estimate = jax.jit(lambda key, surrogate=surrogate: jax.grad(surrogate)(problem.params, key))
        report = check_unbiased(estimate, exact, jax.random.key(seed + 1), draws=draws)
        row = {"method": name, "kind": method.kind, "passed": report.passed, **parts(report)}
        print(name, "passed" if report.passed else "FAILED", row["router"], row["experts"], flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description="Biases of ways to train a router.")
    parser.add_argument("--draws", type=int, default=4000, help="of each of four chains")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/biased_gradients.json")
    parser.add_argument("--picture", default="docs/images/biased_gradients.png")
    args = parser.parse_args()
    losses = {name: measure(problem, args.draws, args.seed) for name, problem in problems(args.seed).items()}
    sizes = {"n": N, "k": K, "classes": CLASSES, "draws": 4 * args.draws, "seed": args.seed}
    write_json(args.out, {"machine": machine(), **sizes, "losses": losses})
    picture(losses["cross-entropy"], args.picture)


if __name__ == "__main__":
    main()
