"""Whether errors that the log-probability of a matching reports are as large as those it makes.

    python -m benchmarks.log_prob_honesty [--problems 500] [--keys 100] [--seed 0] [--out benchmarks/results]

Random problems, own draws of theirs, with and without free places: the estimate of each against a reference from 100
times the draws, with another key and the experts in reverse order, so that other prices are pinned and other
coordinates drawn in. And permutations under sharp logits, own draws and assignments that do not look at the logits:
estimates by many keys against the mean probability over references of other keys.
"""

import argparse
import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.distributions import Estimate, GumbelMatching, matching_log_prob

DRAWS = 512  # the default
MORE = 100  # times as many for a reference
SIZES = ((8, 4), (24, 4), (60, 4), (12, 6), (40, 8), (20, 10), (24, 12), (60, 12))
SCALES = (0.5, 2.0, 5.0)
PERMUTATIONS = tuple(itertools.product((16, 32), (3.0, 6.0), (True, False)))
REFERENCES = 4

Row = dict[str, Any]


@partial(jax.jit, static_argnames=("draws", "capacity"))
def estimate(logits: Array, assignment: Array, key: Array, *, capacity: int, draws: int = DRAWS) -> Estimate:
    """At equal capacities."""
    return matching_log_prob(logits, assignment, capacity, key=key, num_draws=draws)


def random_problem(seed: int) -> tuple[Row, float, float]:
    """One problem: what it is, how far off its estimate is, and by how much it says that it may be."""
    rng = np.random.default_rng(seed)
    n, k = SIZES[seed % len(SIZES)]
    scale, spare = SCALES[seed // len(SIZES) % len(SCALES)], int(rng.integers(2))
    capacity = -(-n // k) + spare
    logits = jnp.asarray(scale * rng.normal(size=(n, k)), jnp.float32)
    assignment = GumbelMatching(logits, capacity).sample(jax.random.key(seed))
    first, second = jax.random.split(jax.random.key(seed + 1))
    value, error = estimate(logits, assignment, first, capacity=capacity)
    reference = estimate(logits[:, ::-1], k - 1 - assignment, second, capacity=capacity, draws=MORE * DRAWS)
    what = {"n": n, "k": k, "scale": scale, "free": k * capacity - n}
    return what, float(value - reference.value), float(jnp.hypot(error, reference.error))


def random_problems(args: argparse.Namespace) -> Row:
    """How many of all problems are within 4 errors, and which are not."""
    numbers = range(args.seed, args.seed + args.problems)
    found = [random_problem(seed) for seed in tqdm(numbers, desc="random problems", leave=False)]
    off, errors = (np.array([part[at] for part in found]) for at in (1, 2))
    outside = np.abs(off) > 4 * errors
    beyond = [{**found[at][0], "off": float(off[at]), "error": float(errors[at])} for at in np.flatnonzero(outside)]
    return {"problems": args.problems, "within_4_errors": 1 - float(outside.mean()), "outside": beyond, **sizes(off)}


def permutations(n: int, scale: float, own: bool, args: argparse.Namespace) -> Row:
    """As many problems as keys of each."""
    off, errors = [], []
    problems = max(args.keys // 5, 1)
    for problem in tqdm(range(problems), desc=f"permutations of {n}", leave=False):
        rng = np.random.default_rng(args.seed + problem)
        logits = jnp.asarray(scale * rng.normal(size=(n, n)), jnp.float32)
        draw = GumbelMatching(logits, 1).sample(jax.random.key(args.seed + problem))
        assignment = draw if own else jnp.asarray(rng.permutation(n), jnp.int32)
        one = partial(estimate, logits, assignment, capacity=1)
        keys, others = (jax.random.split(jax.random.key(seed), args.keys) for seed in (problem, problem + problems))
        values, reported = jax.vmap(one)(keys)
        references = [one(key, draws=MORE * DRAWS) for key in others[:REFERENCES]]
        best = np.array([float(reference.value) for reference in references])
        truth = float(np.logaddexp.reduce(best) - math.log(REFERENCES))
        left = max(float(best.std()), float(np.mean([r.error for r in references]))) / math.sqrt(REFERENCES)
        off.append(np.asarray(values) - truth)
        errors.append(np.hypot(np.asarray(reported), left))
    far, error = np.concatenate(off), np.concatenate(errors)
    row = {"n": n, "scale": scale, "assignment": "own draw" if own else "any", "estimates": len(far)}
    return {
        **row,
        "median_error": float(np.median(error)),
        "within_4_errors": float(np.mean(np.abs(far) <= 4 * error)),
        **sizes(far),
    }


def sizes(off: np.ndarray) -> Row:
    """How far off estimates are."""
    return {"median_off": float(np.median(np.abs(off))), "max_off": float(np.abs(off).max())}


def main() -> None:
    """Run both, print them, write them as JSON."""
    parser = argparse.ArgumentParser(description="Whether reported errors of log-probabilities are large enough.")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--keys", type=int, default=100, help="of each permutation; a fifth as many permutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    results: Row = {"machine": machine(), "seed": args.seed, "random": random_problems(args)}
    print(results["random"], flush=True)
    results["permutations"] = []
    for n, scale, own in PERMUTATIONS:
        results["permutations"].append(permutations(n, scale, own, args))
        print(results["permutations"][-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "log_prob_honesty.json", results)


if __name__ == "__main__":
    main()
