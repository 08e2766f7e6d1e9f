"""What the variances of `benchmarks.variance_study` tend to with many datapoints per expert, beside the measured ones.

    python -m benchmarks.variance_limit [--results benchmarks/results/variance_study.json]

The prices of Gumbel-Matching and the numbers of datapoints that an expert draws then hardly vary, so that datapoints
are nearly independent, with weights that only depend on who is where. Prints a table in Markdown, of the settings with
at least 32 datapoints per expert; both parts of some of them; and the exact variance of skip for routers of scale 0.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import binom

from benchmarks.variance_problems import independent_variance, problem
from benchmarks.variance_table import PROCESSES, head, lower, router

Row = dict[str, Any]


def prices(logits: np.ndarray, capacity: int) -> np.ndarray:
    """At least 0, such that the expected loads of the softmax of `logits - prices` fit the places."""

    def dual(u: np.ndarray) -> tuple[float, np.ndarray]:
        value = np.sum(logsumexp(logits - u, axis=1)) + capacity * np.sum(u)
        return float(value), capacity - np.sum(np.asarray(softmax(logits - u, axis=1)), axis=0)

    start = np.zeros(logits.shape[1])
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}
    return minimize(dual, start, jac=True, bounds=[(0, None)] * len(start), method="L-BFGS-B", options=options).x


def limits(row: Row, seed: int) -> np.ndarray:
    """`(2, 3)`, of skip and of Gumbel-Matching over independent draws, for one problem: the whole gradient, the
    experts' part and the router's.
    """
    own = problem(row["informed"], row["n"], row["k"], row["scale"], row["favour"], seed)
    x, logits, slope, loss = (np.asarray(part, np.float64) for part in own)
    p = np.asarray(softmax(logits, axis=1))
    q = np.asarray(softmax(logits - prices(logits, row["capacity"]), axis=1))
    over = np.maximum(1, p.sum(axis=0) / row["capacity"])
    length = np.sum(x**2, axis=1, keepdims=True)
    away = 1 - 2 * p + np.sum(p**2, axis=1, keepdims=True)  # squared length of onehot(j) - p
    advantage = loss - np.sum(p * loss, axis=1, keepdims=True)
    # Squared lengths of what a datapoint adds at each expert, and of its mean.
    squares = np.stack([length * slope**2, length * loss**2 * away])
    of_mean = [np.sum(length * (p * part) ** 2) for part in (slope, advantage)]
    alone, *processes = (np.sum(w * squares, axis=(1, 2)) - of_mean for w in (p, p * over, p**2 / q))
    return np.array([[np.sum(found) / np.sum(alone), *(found / alone)] for found in processes])


def flat_skip(row: Row, seed: int) -> float:
    """Of skip over independent draws, exactly, for a router that has the same logits for all: counts are binomial."""
    own = problem(row["informed"], row["n"], row["k"], row["scale"], row["favour"], seed)
    x, logits, slope, loss = (np.asarray(part, np.float64) for part in own)
    n, p = len(x), np.asarray(softmax(logits[0]))
    count = np.arange(1, n + 1)
    kept = np.minimum(count, row["capacity"])
    extra = 0.0
    for j in range(row["k"]):
        weight = np.sum(binom.pmf(count, n, p[j]) * count * (count - kept) / kept)
        own_part = (x * slope[:, j : j + 1] / n).var(axis=0, ddof=1).sum()
        score = np.sum((np.eye(row["k"])[j] - p) ** 2) * (x * loss[:, j : j + 1] / n).var(axis=0, ddof=1).sum()
        extra += weight * (own_part + score)
    alone = independent_variance(own)
    return float(1 + extra / (alone.expert + alone.router))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The variances in the limit of many places.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/variance_study.json"))
    study = json.loads(parser.parse_args().results.read_text())
    seeds = range(study["settings"]["seed"], study["settings"]["seed"] + study["settings"]["problems"])
    rows = [row for row in study["rows"] if row["ratio"] >= 32 and not (row["informed"] and row["scale"] == 0)]
    rows.sort(key=lambda row: (row["k"], row["informed"], row["favour"], row["scale"], row["factor"]))
    logs = [np.log([limits(row, seed) for seed in seeds]).mean(axis=0) for row in rows]
    titles = ["experts", "router", "scale (nats)", "capacity factor", "skip: limit", "measured"]
    print("\n".join(head([*titles, "GM: limit", "measured", "GM / skip: limit", "measured", "lower"])))
    for row, log in zip(rows, logs, strict=True):
        cells = [f"{row['k']}", router(row), f"{row['scale']:g}", f"{row['factor']:g}"]
        for place, process in enumerate(PROCESSES):
            cells += [f"{np.exp(log[place, 0]):.2f}", f"{row[process]['all']['value']:.2f}"]
        ratio = row["gumbel_matching_over_skip"]["value"]
        cells += [f"{np.exp(log[1, 0] - log[0, 0]):.2f}", f"{ratio:.2f}", lower(row)]
        print(f"| {' | '.join(cells)} |")
    print("\ntwo experts, skewed, by part: limit (measured)")
    for row, log in zip(rows, logs, strict=True):
        if row["k"] == 2 and router(row) == "skewed":
            cells = [f"scale {row['scale']:g}"]
            for place, process in enumerate(PROCESSES):
                for number, part in enumerate(("expert", "router"), 1):
                    measured = row[process][part]["value"]
                    cells.append(f"{process} {part} {np.exp(log[place, number]):.2f} ({measured:.2f})")
            print(", ".join(cells))
    print("\nskip, scale 0, exactly (measured)")
    for row in study["rows"]:
        if row["scale"] == 0 and not row["informed"]:
            exact = np.exp(np.mean(np.log([flat_skip(row, seed) for seed in seeds])))
            name = f"{row['k']} experts, {router(row)}, capacity factor {row['factor']:g}"
            print(f"{name}: {exact:.3f} ({row['skip']['all']['value']:.3f})")


if __name__ == "__main__":
    main()
