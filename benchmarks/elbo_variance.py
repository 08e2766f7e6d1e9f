"""Variance of `AssignmentELBO`'s gradient over that of NumPyro's `TraceGraph_ELBO`, on a mixture of linear regressions.

    python -m benchmarks.elbo_variance [--seed 0] [--draws 10000] [--resume] [--out benchmarks/results]
                                       [--images docs/images]

64 datapoints, 4 experts, 4 particles (and 2, from one start), along a training run from each of three starts:

- *independent*: with `IndependentRouter`, whose particles are shared out among the experts;
- *unlimited*: the skip process with room for all, that is, independent particles with the others' mean as the baseline;
- *skip* and *gumbel_matching*: 16 places for each expert, not one to spare, and the same baseline, so that what they
  have beyond *unlimited* is the price of the capacity; *roomy*: 24 places.

The variance is the trace of the covariance, over all parameters and over each of the two. A ratio has a 95% interval,
by bootstrap over the draws; with few large draws in the sum (`largest_draw` is the share of the largest) it is too
narrow.

The lines are latent as well, and their noise stays when the assignment's is gone: *enumerated* sums the assignment out
for the same number of draws of the lines. What an estimator has beyond it is due to the assignment, and
`removed` is the share of that part of `TraceGraph_ELBO`'s variance that an estimator does not have.

Writes `elbo_variance.json` after every row, and `elbo_variance.png`; a run that was interrupted goes on with
`--resume`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.infer import SVI, TraceGraph_ELBO
from numpyro.optim import Adam
from tqdm import tqdm

from benchmarks._machine import machine
from benchmarks.elbo_mixture import Data, Enumerated, K, N, data, guide, model, start
from benchmarks.elbo_picture import picture
from gumbel_moe._whole_file import write_json
from gumbel_moe.estimators import AssignmentELBO
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter

STEPS = (0, 50, 100, 200, 500, 1000)
SCALES = (0.1, 1.0, 3.0)  # of the lines that training starts from
SETTINGS = [(4, scale, step) for scale in SCALES for step in STEPS] + [(2, 1.0, step) for step in STEPS]
ROOMY = 3 * N // (2 * K)  # places, at a capacity factor of 1.5
RATE = 0.03
BLOCKS, RESAMPLES = 500, 2000
BASE = "trace_graph"
PARTS = ("all", "lines", "logits")


def elbos(particles: int) -> dict[str, Any]:
    """All estimators, by name."""
    routers = {
        "independent": IndependentRouter(),
        "unlimited": SkipRouter(N),
        "skip": SkipRouter(N // K),
        "gumbel_matching": GumbelMatchingRouter(N // K, floor=0),
        "skip_roomy": SkipRouter(ROOMY),
        "gumbel_matching_roomy": GumbelMatchingRouter(ROOMY, floor=0),
    }
    ours = {name: AssignmentELBO({"z": router}, num_particles=particles) for name, router in routers.items()}
    return {BASE: TraceGraph_ELBO(num_particles=particles), "enumerated": Enumerated(particles), **ours}


def train(scale: float, own: Data, seed: int) -> dict[int, dict[str, Array]]:
    """Parameters at each of the steps."""
    svi = SVI(model, guide, Adam(RATE), loss=elbos(4)["independent"])
    state = svi.init(jax.random.key(seed), own, init_params=start(scale, seed))
    run = jax.jit(lambda state, steps: jax.lax.fori_loop(0, steps, lambda _, s: svi.update(s, own)[0], state))
    found = {}
    for last, step in zip((0, *STEPS), STEPS, strict=False):
        state = run(state, step - last)
        found[step] = svi.get_params(state)
    return found


def gradients(elbo: Any, own: Data, draws: int) -> Any:
    """A compiled function of parameters and keys, one draw after the other."""

    def one(params: dict[str, Array], key: Array) -> dict[str, Array]:
        return jax.grad(lambda p: elbo.loss(key, p, model, guide, own))(params)

    keys = jax.random.split(jax.random.key(0), draws)
    function = jax.jit(lambda params, keys: jax.lax.map(lambda key: one(params, key), keys))
    return function.lower(start(1.0, 0), keys).compile()


def squared_distances(drawn: dict[str, Array]) -> dict[str, np.ndarray]:
    """`(draws,)` squared distances from the mean, scaled so that their mean is the trace of the covariance."""
    found = {}
    for name, gradient in drawn.items():
        flat = np.asarray(gradient, np.float64).reshape(len(gradient), -1)
        found[name] = np.sum((flat - flat.mean(axis=0)) ** 2, axis=1) * len(flat) / (len(flat) - 1)
    return {"all": found["lines"] + found["logits"], **found}


def resampled(values: np.ndarray, seed: int) -> np.ndarray:
    """`(resamples,)` means of `values`, whose blocks are drawn with replacement."""
    blocks = np.array([block.mean() for block in np.array_split(values, BLOCKS)])
    weights = np.random.default_rng(seed).multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), RESAMPLES)
    return weights @ blocks / BLOCKS


def with_interval(value: float, resampled: np.ndarray) -> dict[str, float]:
    """The middle 95%."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high)}


def row(params: dict[str, Array], functions: dict[str, Any], own: Data, draws: int, seed: int) -> dict[str, Any]:
    """All estimators at the same parameters."""
    log_q = jax.nn.log_softmax(params["logits"], axis=1)
    found: dict[str, Any] = {
        "loss": float(Enumerated(1000).loss(jax.random.key(seed), params, model, guide, own)),
        "entropy": float(-jnp.mean(jnp.sum(jnp.exp(log_q) * log_q, axis=1))),
        "largest_load": float(jnp.max(jnp.sum(jnp.exp(log_q), axis=0))),
    }
    squares, seconds = {}, {}
    for number, (name, function) in enumerate(functions.items()):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), draws)
        begin = time.perf_counter()
        squares[name] = squared_distances(jax.block_until_ready(function(params, keys)))
        seconds[name] = (time.perf_counter() - begin) / draws
    means = {name: {part: x.mean() for part, x in parts.items()} for name, parts in squares.items()}
    again = {
        name: {part: resampled(x, seed + number) for part, x in parts.items()}
        for number, (name, parts) in enumerate(squares.items())
    }

    def compared(function: Any, name: str) -> dict[str, Any]:
        return {part: with_interval(function(means, part, name), function(again, part, name)) for part in PARTS}

    for name in functions:
        found[name] = {
            "milliseconds": round(1e3 * seconds[name], 4),
            "largest_draw": float(squares[name]["all"].max() / squares[name]["all"].sum()),
            "variance": {part: float(means[name][part]) for part in PARTS},
        }
        if name != BASE:
            found[name]["ratio"] = compared(ratio, name)
        if name not in (BASE, "enumerated"):
            found[name]["removed"] = compared(removed, name)
    return found


def ratio(variance: Any, part: str, name: str) -> Any:
    """Over `TraceGraph_ELBO`'s."""
    return variance[name][part] / variance[BASE][part]


def removed(variance: Any, part: str, name: str) -> Any:
    """The share of the assignment's part of `TraceGraph_ELBO`'s variance that is gone."""
    least = variance["enumerated"][part]
    return 1 - (variance[name][part] - least) / (variance[BASE][part] - least)


def main() -> None:
    """Measure what is missing, write it down, draw the picture."""
    parser = argparse.ArgumentParser(description="Variance of ELBOs' gradients.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=10_000, help="of every gradient")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the last run has written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    if args.draws < BLOCKS:
        parser.error(f"argument --draws: must be at least {BLOCKS}, got {args.draws}")

    path = args.out / "elbo_variance.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {"draws": args.draws, "seed": args.seed}
    table: dict[str, Any] = {"machine": machine(), "settings": asked, "rows": []}
    if args.resume and path.exists():
        table = json.loads(path.read_text())
        if table["settings"] != asked:
            parser.error(f"argument --resume: {path} was made with {table['settings']}, not {asked}")
    done = {(old["particles"], old["start"], old["step"]) for old in table["rows"]}
    missing = [setting for setting in SETTINGS if setting not in done]
    own = data(args.seed)
    functions: dict[int, dict[str, Any]] = {}
    trained: dict[float, dict[int, dict[str, Array]]] = {}
    for particles, scale, step in tqdm(missing, desc="settings"):
        if particles not in functions:
            functions[particles] = {name: gradients(elbo, own, args.draws) for name, elbo in elbos(particles).items()}
        if scale not in trained:
            trained[scale] = train(scale, own, args.seed)
        found = row(trained[scale][step], functions[particles], own, args.draws, args.seed)
        table["rows"].append({"particles": particles, "start": scale, "step": step, **found})
        write_json(path, table)
    args.images.mkdir(parents=True, exist_ok=True)
    picture(table["rows"], args.images / "elbo_variance.png")


if __name__ == "__main__":
    main()
