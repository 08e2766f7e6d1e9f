"""What a NumPyro program with a Gumbel-Matching waits for: the first step of SVI, and each step after it.

    python -m benchmarks.svi_steps [--seed 0] [--steps 200]

A location for each expert, and an assignment that the guide learns; `TraceGraph_ELBO`. Every program has a process of
its own and no cache on the disk, once with `GumbelMatching` in model and guide and once with `Categorical` in its
place. Seconds and milliseconds of processor time, which other programs on the machine hardly change. Prints a Markdown
table.
"""

import argparse
import os
import subprocess
import sys
import time
from typing import Any

SIZES = ((8, 2, 4), (9, 3, 4), (8, 4, 4), (64, 8, 4), (9, 3, 16))


def measure(n: int, k: int, particles: int, matched: bool, steps: int, seed: int) -> tuple[float, float, float]:
    """Of this process: seconds until everything is imported, and until the first step's end; a step's after it."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    import optax
    from numpyro.infer import SVI, TraceGraph_ELBO

    from gumbel_moe.distributions import GumbelMatching

    imported = time.process_time()
    for_key, for_logits, for_y = jax.random.split(jax.random.key(seed), 3)
    logits, y = jax.random.normal(for_logits, (n, k)), jax.random.normal(for_y, (n,))

    def assignment(logits: Any) -> Any:
        categorical: Any = dist.Categorical(logits=logits)
        return GumbelMatching(logits, -(-n // k)) if matched else categorical.to_event(1)

    def model(y: jax.Array) -> None:
        location: Any = numpyro.sample("location", dist.Normal(jnp.zeros(k), 2.0).to_event(1))
        expert: Any = numpyro.sample("expert", assignment(jnp.zeros((n, k))))
        numpyro.sample("y", dist.Normal(location[expert], 0.5).to_event(1), obs=y)

    def guide(y: jax.Array) -> None:
        numpyro.sample("location", dist.Normal(numpyro.param("mean", jnp.zeros(k)), 0.1).to_event(1))
        numpyro.sample("expert", assignment(numpyro.param("logits", logits)))

    svi = SVI(model, guide, optax.adam(1e-2), TraceGraph_ELBO(num_particles=particles))
    state, update = svi.init(for_key, y), jax.jit(svi.update)

    def run(state: Any, steps: int) -> Any:
        for _ in range(steps):
            state, loss = update(state, y)
            loss.block_until_ready()
        return state

    state = run(state, 1)
    first = time.process_time()
    run(state, steps)
    return imported, first, (time.process_time() - first) / steps


def main() -> None:
    """Measure each in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", type=int, nargs=4, metavar=("N", "K", "PARTICLES", "MATCHED"), help="in this process")
    args = parser.parse_args()
    if args.only:
        n, k, particles, matched = args.only
        print(*measure(n, k, particles, bool(matched), args.steps, args.seed))
        return
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    print("| n, k, particles | imports | matching: first step | each step | categorical: first step | each step |")
    print("|---|---:|---:|---:|---:|---:|")
    for size in SIZES:
        found = []
        for matched in (1, 0):
            asked = ["--only", *map(str, size), str(matched), "--steps", str(args.steps), "--seed", str(args.seed)]
            command = [sys.executable, "-m", "benchmarks.svi_steps", *asked]
            told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            found.append([float(number) for number in told.split()])
        (imported, first, step), (_, plain_first, plain_step) = found
        cells = [f"{imported:.1f} s", f"{first:.1f} s", f"{1000 * step:.1f} ms"]
        cells += [f"{plain_first:.1f} s", f"{1000 * plain_step:.1f} ms"]
        print(f"| {', '.join(map(str, size))} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
