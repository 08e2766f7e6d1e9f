"""How accurate and how fast the log-probability of a matching is: against exact values, and over many keys.

    python -m benchmarks.log_prob [--seeds 100] [--repeats 15] [--seed 0] [--seconds 20] [--out benchmarks/results]
    python -m benchmarks.log_prob --compile

At equal logits every assignment that fills the capacities has `log P = sum_j log c_j! - log n!`: estimates from many
keys are compared with it, and with the errors that they report. For normal logits there is no exact value, and they are
compared with `pooled`, the logarithm of the mean of their probabilities. All numbers are float32, at the default number
of draws. A row stops early when its keys have taken `--seconds`; it says how many it used. Rows of one shape share a
compilation. The two implementations are timed side by side, that in JAX for all devices and the custom call of a CPU.
`--compile` times nothing but compilations, of the value, with the gradient, and of batches of both, and writes no file.

Sharp permutations, the hardest problems, are in `python -m benchmarks.log_prob_honesty`.
"""

import argparse
import functools
import math
import time
from collections.abc import Callable
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

EQUAL = ((64, 8), (128, 16), (1024, 16), (1024, 64), (4096, 64), (8, 8), (16, 16), (32, 32))
NORMAL = tuple((n, k, scale) for scale in (1.0, 3.0) for n, k in ((64, 8), (1024, 16), (1024, 64)))
BATCH = (64, 256, 8)
FEWEST = 10  # keys of a row, however slow
COMPILED = ((6, 2), (6, 3), (64, 8), (1024, 16))
BOTH = ((6, 2), (9, 3), (64, 8), (1024, 16), (4096, 64))

Row = dict[str, Any]


def compiled(function: Callable[..., Any], *arguments: Array) -> tuple[Callable[..., Any], float]:
    """The function compiled for these arguments, and the seconds which that took."""
    start = time.perf_counter()
    executable = jax.jit(function).lower(*arguments).compile()
    return executable, time.perf_counter() - start


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - start


def normal_logits(shape: tuple[int, ...], scale: float, seed: int) -> Array:
    """Normal logits of the scale, float32."""
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def round_robin(n: int, k: int) -> Array:
    """An assignment that fills equal capacities."""
    return jnp.arange(n, dtype=jnp.int32) % k


@functools.cache
def estimator(n: int, k: int) -> tuple[Callable[..., Estimate], float]:
    """The estimate of one assignment at equal capacities that just suffice, compiled; and the seconds of that."""
    return compiled(
        lambda a, z, key: matching_log_prob(a, z, n // k, key=key),
        jnp.zeros((n, k), jnp.float32),
        round_robin(n, k),
        jax.random.key(0),
    )


def over_keys(
    logits: Array, assignment: Array, args: argparse.Namespace, label: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One assignment under many keys: estimates, the errors that they report, and the seconds of each."""
    estimate, _ = estimator(*logits.shape)
    keys = jax.random.split(jax.random.key(args.seed), args.seeds)
    timed(lambda: estimate(logits, assignment, keys[0]))
    results, spent = [], 0.0
    for key in tqdm(keys, desc=label, leave=False):
        (value, error), seconds = timed(lambda key=key: estimate(logits, assignment, key))
        results.append((float(value), float(error), seconds))
        spent += seconds
        if len(results) >= FEWEST and spent > args.seconds:
            break
    values, errors, seconds = np.array(results).T
    return values, errors, seconds


def summary(off: np.ndarray, errors: np.ndarray, seconds: np.ndarray) -> Row:
    """How far estimates are from the truth, and what they say about that themselves."""
    return {
        "median_off": float(np.median(np.abs(off))),
        "max_off": float(np.abs(off).max()),
        "median_error": float(np.median(errors)),
        "within_4_errors": float(np.mean(np.abs(off) <= 4 * errors)),
        "seconds": float(np.median(seconds)),
    }


def against_exact(n: int, k: int, args: argparse.Namespace) -> Row:
    """Equal logits, where the probability is known."""
    exact = k * math.lgamma(n // k + 1) - math.lgamma(n + 1)
    logits = jnp.zeros((n, k), jnp.float32)
    values, errors, seconds = over_keys(logits, round_robin(n, k), args, f"equal ({n}, {k})")
    row = {"logits": "equal", "n": n, "k": k, "keys": len(values), "exact": exact}
    return {**row, **summary(values - exact, errors, seconds), "compile_seconds": estimator(n, k)[1]}


def against_pooled(n: int, k: int, scale: float, args: argparse.Namespace) -> Row:
    """Normal logits, and the distribution's own draw as assignment."""
    logits = normal_logits((n, k), scale, args.seed)
    assignment = GumbelMatching(logits, n // k).sample(jax.random.key(args.seed))
    values, errors, seconds = over_keys(logits, assignment, args, f"scale {scale:g} ({n}, {k})")
    truth = pooled(values)
    row = {"logits": f"normal, scale {scale:g}", "n": n, "k": k, "keys": len(values), "pooled": truth}
    return {**row, **summary(values - truth, errors, seconds), "compile_seconds": estimator(n, k)[1]}


def pooled(values: np.ndarray) -> float:
    """The logarithm of the mean of the probabilities."""
    return float(np.logaddexp.reduce(values) - math.log(len(values)))


def time_batch(args: argparse.Namespace) -> Row:
    """A batch of problems with one assignment each, under `vmap`."""
    size, n, k = BATCH
    logits = normal_logits(BATCH, 1.0, args.seed)
    assignment = GumbelMatching(logits, n // k).sample(jax.random.key(args.seed))
    many, compile_seconds = compiled(jax.vmap(lambda a, z: matching_log_prob(a, z, n // k)), logits, assignment)
    seconds = [timed(lambda: many(logits, assignment))[1] for _ in range(args.repeats + 1)][1:]
    row = {"batch": size, "n": n, "k": k, "seconds": float(np.median(seconds))}
    return {**row, "compile_seconds": compile_seconds, "median_error": float(np.median(many(logits, assignment).error))}


def time_compilation(n: int, k: int) -> Row:
    """Lines of StableHLO, and seconds in which they are compiled, of the value alone and of what is made from it."""
    logits, assignment = jnp.zeros((2, n, k), jnp.float32), jnp.stack([round_robin(n, k)] * 2)

    def value(a: Array, z: Array) -> Array:
        return matching_log_prob(a, z, n // k).value

    both = jax.value_and_grad(value)
    forms = {"value": value, "value_and_grad": both, "vmap": jax.vmap(value), "vmap_of_both": jax.vmap(both)}
    row: Row = {"n": n, "k": k}
    for name, form in forms.items():
        arguments = (logits, assignment) if name.startswith("vmap") else (logits[0], assignment[0])
        lowered = jax.jit(form).lower(*arguments)
        row[f"{name}_lines"] = len(lowered.as_text().splitlines())
        row[f"{name}_seconds"] = timed(lambda lowered=lowered: lowered.compile() and None)[1]
    return row


def time_implementations(n: int, k: int, args: argparse.Namespace) -> Row:
    """Seconds to compile and to run, of the value and with its gradient: as all devices do, and as a CPU does."""
    logits = normal_logits((n, k), 1.0, args.seed)
    assignment = GumbelMatching(logits, n // k).sample(jax.random.key(args.seed))
    row: Row = {"n": n, "k": k}
    for name in ("jax", "custom_call"):

        def value(a: Array, z: Array) -> Array:
            return matching_log_prob(a, z, n // k).value

        # The custom call draws numbers that depend on their places alone; it is not for others.
        with jax.threefry_partitionable(name == "custom_call"):
            for form, function in {"value": value, "value_and_grad": jax.value_and_grad(value)}.items():
                run, row[f"{name}_{form}_compile_seconds"] = compiled(function, logits, assignment)
                repeats = range(args.repeats + 1)
                seconds = [timed(lambda run=run: run(logits, assignment))[1] for _ in repeats][1:]
                row[f"{name}_{form}_seconds"] = float(np.min(seconds))
    return row


def show(row: Row) -> Row:
    """Print one row, and pass it on."""
    numbers = "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
    )
    print(numbers, flush=True)
    return row


def main() -> None:
    """Run the table, print it, write it as JSON."""
    parser = argparse.ArgumentParser(description="Accuracy and speed of the log-probability of a matching.")
    parser.add_argument("--seeds", type=int, default=100, help="keys per row")
    parser.add_argument("--repeats", type=int, default=15, help="of the timings of implementations and batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help=f"per row, after which it ends with {FEWEST} keys")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--compile", action="store_true", help="time compilations alone, and write nothing")
    args = parser.parse_args()
    if args.compile:
        for shape in COMPILED:
            show(time_compilation(*shape))
        return

    table = {
        "machine": machine(),
        "equal": [show(against_exact(*case, args)) for case in EQUAL],
        "normal": [show(against_pooled(*case, args)) for case in NORMAL],
        "implementations": [show(time_implementations(*shape, args)) for shape in BOTH],
        "vmap": show(time_batch(args)),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "log_prob.json", table)


if __name__ == "__main__":
    main()
