"""What the variances of `benchmarks.variance_study` tend to with many datapoints per expert, beside the measured ones.

    python -m benchmarks.variance_limit [--results benchmarks/results/variance_study.json]

The prices of Gumbel-Matching and the numbers of datapoints that an expert draws then hardly vary, so that datapoints
are nearly independent, with weights that only depend on who is where. Prints a table in Markdown, of the settings with
at least 32 datapoints per expert.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from benchmarks.variance_problems import problem
from benchmarks.variance_table import head, lower, router

Row = dict[str, Any]


def prices(logits: np.ndarray, capacity: int) -> np.ndarray:
    """At least 0, such that the expected loads of the softmax of `logits - prices` fit the places."""

    def dual(u: np.ndarray) -> tuple[float, np.ndarray]:
        value = logsumexp(logits - u, axis=1).sum() + capacity * u.sum()
        return float(value), capacity - np.sum(softmax(logits - u, axis=1), axis=0)

    start = np.zeros(logits.shape[1])
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}
    return minimize(dual, start, jac=True, bounds=[(0, None)] * len(start), method="L-BFGS-B", options=options).x


def limits(row: Row, seed: int) -> tuple[float, float]:
    """Of skip and of Gumbel-Matching, over independent draws, for one problem of a setting."""
    own = problem(row["informed"], row["n"], row["k"], row["scale"], row["favour"], seed)
    x, logits, slope, loss = (np.asarray(part, np.float64) for part in own)
    p = softmax(logits, axis=1)
    q = softmax(logits - prices(logits, row["capacity"]), axis=1)
    over = np.maximum(1, p.sum(axis=0) / row["capacity"])
    # Squared lengths of what datapoint i adds to the gradient at expert j, and of its mean.
    away = 1 - 2 * p + np.sum(p**2, axis=1, keepdims=True)
    length = np.sum(x**2, axis=1, keepdims=True)
    square = length * (slope**2 + loss**2 * away)
    score = p * (loss - np.sum(p * loss, axis=1, keepdims=True))
    of_mean = np.sum(length * ((p * slope) ** 2 + score**2))
    alone = np.sum(p * square) - of_mean
    return tuple((np.sum(weighted * square) - of_mean) / alone for weighted in (p * over, p**2 / q))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The variances in the limit of many places.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/variance_study.json"))
    study = json.loads(parser.parse_args().results.read_text())
    seeds = range(study["settings"]["seed"], study["settings"]["seed"] + study["settings"]["problems"])
    rows = [row for row in study["rows"] if row["ratio"] >= 32 and not (row["informed"] and row["scale"] == 0)]
    titles = ["experts", "router", "scale (nats)", "capacity factor", "skip: limit", "measured"]
    print("\n".join(head([*titles, "GM: limit", "measured", "GM / skip: limit", "measured", "lower"])))
    for row in sorted(rows, key=lambda row: (row["k"], row["informed"], row["favour"], row["scale"], row["factor"])):
        logs = np.log([limits(row, seed) for seed in seeds]).mean(axis=0)
        cells = [f"{row['k']}", router(row), f"{row['scale']:g}", f"{row['factor']:g}"]
        for place, process in enumerate(("skip", "gumbel_matching")):
            cells += [f"{np.exp(logs[place]):.2f}", f"{row[process]['all']['value']:.2f}"]
        ratio = row["gumbel_matching_over_skip"]["value"]
        print(f"| {' | '.join([*cells, f'{np.exp(logs[1] - logs[0]):.2f}', f'{ratio:.2f}', lower(row)])} |")


if __name__ == "__main__":
    main()
