"""Variance of the gradient under skip and Gumbel-Matching, over that of independent draws, which have no capacity.

    python -m benchmarks.variance_study [--seed 0] [--draws 4000] [--problems 12] [--floor 0] [--resume]
                                        [--out benchmarks/results] [--images docs/images]

Against the capacity factor, the sharpness of the router, the number of datapoints per expert, and how much more some
experts are asked for than others. Routers know nothing of the losses (balanced), prefer a quarter of the experts by 1.5
nats (skewed), or prefer experts of low loss (informed).
The variance of independent draws and the mean of all are computed, not drawn; a ratio is the geometric mean over random
problems, with a 95% t-interval over them. Writes `variance_study.json` after every row, or
`variance_study_floored.json` of Gumbel-Matching with a floor, without pictures; a run that was interrupted goes on with
`--resume`.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import stats
from tqdm import tqdm

from benchmarks._machine import machine
from benchmarks.variance_picture import pictures
from benchmarks.variance_problems import Parts, Problem, gradient, independent_variance, problem
from gumbel_moe._floor import check_floor, floored, reweighted
from gumbel_moe._whole_file import write_json
from gumbel_moe.distributions import GumbelMatching, SkipAssignment

KINDS = {"balanced": (False, 0.0), "skewed": (False, 1.5), "informed": (True, 0.0)}
"""Whether it looks at the losses, and how many nats more some experts have."""
FACTORS = (1.0, 1.25, 1.5, 2.0)
SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)
RATIOS = (1, 2, 4, 8, 16, 32)
FAVOURS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
PROCESSES = ("skip", "gumbel_matching")
BATCHES = 20
TAIL = 1e-3  # the largest weights, of which the tail index is taken


class Setting(NamedTuple):
    """One row of the study."""

    informed: bool
    favour: float
    """Nats that some experts have more."""
    k: int
    ratio: int
    """Datapoints per expert."""
    factor: float
    """Places per datapoint."""
    scale: float


class Drawn(NamedTuple):
    """`(draws,)` squared distances from the exact gradient, and `(draws, n)` weights."""

    squared: Parts
    weight: Array


def settings() -> list[Setting]:
    """Every one once."""
    kinds = KINDS.values()
    found = [Setting(*kind, 8, 8, factor, scale) for kind in kinds for factor in FACTORS for scale in SCALES]
    found += [Setting(*kind, 8, ratio, factor, 1.0) for kind in kinds for factor in (1.0, 1.5) for ratio in RATIOS]
    found += [Setting(False, favour, 8, ratio, 1.0, 1.0) for ratio in (8, 32) for favour in FAVOURS]
    found += [Setting(*kind, 2, 50, 1.0, scale) for kind in kinds for scale in SCALES]  # the size of the toy
    whole = [setting for setting in found if (setting.ratio * setting.factor).is_integer()]
    return list(dict.fromkeys(whole))


@partial(jax.jit, static_argnames=("process", "capacity", "draws", "floor"))
def draw(process: str, own: Problem, capacity: int, draws: int, key: Array, floor: float = 0.0) -> Drawn:
    """Many draws of one problem; the floor is that of Gumbel-Matching."""
    exact = gradient(own, jax.nn.softmax(own.logits, axis=1))

    def one(key: Array) -> Drawn:
        if process == "skip":
            skip = SkipAssignment(own.logits, capacity)
            value, weight = skip.sample_with_weights(key)
            expert = skip.expert(value)
        else:
            drawn_from = floored(own.logits, floor)
            expert, weight = GumbelMatching(drawn_from, capacity).sample_with_weights(key)
            weight = reweighted(weight, own.logits, drawn_from, expert, floor)
        drawn = gradient(own, weight[:, None] * jax.nn.one_hot(expert, own.logits.shape[1]))
        return Drawn(jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), drawn, exact), weight)

    return jax.lax.map(one, jax.random.split(key, draws), batch_size=200)


def tail_index(weights: np.ndarray) -> float | None:
    """Hill's estimator: P(weight > x) falls as x to the power of minus this; a variance needs more than 2. None where
    the largest weights are equal.
    """
    some = np.sort(weights.ravel())[-max(int(TAIL * weights.size), 20) :]
    logs = np.log(some / some[0])
    return float((len(logs) - 1) / logs.sum()) if logs.sum() > 1e-6 else None


def across(ratios: list[float]) -> dict[str, float]:
    """Geometric mean over problems, with its interval."""
    logs = np.log(ratios)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
    return {
        "value": float(np.exp(logs.mean())),
        "low": float(np.exp(logs.mean() - half)),
        "high": float(np.exp(logs.mean() + half)),
    }


def row(setting: Setting, draws: int, problems: int, seed: int, floor: float = 0.0) -> dict[str, Any]:
    """Both processes on the same problems."""
    n, capacity = setting.k * setting.ratio, int(setting.ratio * setting.factor)
    result: dict[str, Any] = {**setting._asdict(), "n": n, "capacity": capacity}
    wholes = []
    for process in PROCESSES:
        start = time.perf_counter()
        ratios: dict[str, list[float]] = {name: [] for name in ("all", "expert", "router", "median_of_batches")}
        effective, share, skipped, largest, weights = [], [], [], [], []
        for number in range(problems):
            own = problem(setting.informed, n, setting.k, setting.scale, setting.favour, seed + number)
            key = jax.random.fold_in(jax.random.key(seed), number)
            drawn = jax.tree.map(
                lambda part: np.asarray(part, np.float64), draw(process, own, capacity, draws, key, floor)
            )
            base = jax.tree.map(float, independent_variance(own))
            both = drawn.squared.expert + drawn.squared.router
            batches = both.reshape(BATCHES, -1).mean(axis=1)
            ratios["all"].append(both.mean() / (base.expert + base.router))
            ratios["expert"].append(drawn.squared.expert.mean() / base.expert)
            ratios["router"].append(drawn.squared.router.mean() / base.router)
            ratios["median_of_batches"].append(np.median(batches) / (base.expert + base.router))
            effective.append(np.mean(drawn.weight.sum(axis=1) ** 2 / (n * (drawn.weight**2).sum(axis=1))))
            share.append(both.max() / both.sum())
            skipped.append(np.mean(drawn.weight == 0))
            largest.append(drawn.weight.max())
            weights.append(drawn.weight)
        wholes.append(np.asarray(ratios["all"]))
        result[process] = {
            **{name: across(values) for name, values in ratios.items()},
            "effective_fraction": float(np.mean(effective)),
            "largest_draw": float(np.max(share)),
            "skipped": float(np.mean(skipped)),
            "max_weight": float(np.max(largest)),
            "tail_index": tail_index(np.stack(weights)) if process == "gumbel_matching" else None,
            "seconds": round(time.perf_counter() - start, 2),
        }
    # Problem by problem: they differ more than the processes do.
    result["gumbel_matching_over_skip"] = across(list(wholes[1] / wholes[0]))
    return result


def main() -> None:
    """Measure what is missing, write it down, draw the pictures."""
    parser = argparse.ArgumentParser(description="Variance of skip and Gumbel-Matching.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=4000, help=f"of each problem, a multiple of {BATCHES}")
    parser.add_argument("--problems", type=int, default=12, help="random problems of each setting")
    parser.add_argument(
        "--floor", type=lambda text: check_floor(float(text)), default=0.0, help="of Gumbel-Matching (default: 0)"
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows that the last run has written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    if args.draws < BATCHES or args.draws % BATCHES:
        parser.error(f"argument --draws: must be a multiple of {BATCHES}, got {args.draws}")

    check_floor(args.floor)
    path = args.out / f"variance_study{'_floored' if args.floor else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {"draws": args.draws, "problems": args.problems, "seed": args.seed}
    asked |= {"floor": args.floor} if args.floor else {}
    table: dict[str, Any] = {"machine": machine(), "settings": asked, "rows": []}
    if args.resume and path.exists():
        table = json.loads(path.read_text())
        if table["settings"] != asked:
            parser.error(f"argument --resume: {path} was made with {table['settings']}, not {asked}")
    done = {Setting(*(old[name] for name in Setting._fields)) for old in table["rows"]}
    for setting in tqdm([setting for setting in settings() if setting not in done], desc="settings"):
        table["rows"].append(row(setting, args.draws, args.problems, args.seed, args.floor))
        write_json(path, table)
    if not args.floor:
        args.images.mkdir(parents=True, exist_ok=True)
        pictures(table["rows"], args.images)


if __name__ == "__main__":
    main()
