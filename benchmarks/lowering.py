"""Size of the programs that an accelerator is given: StableHLO operations, and loops, of what this library computes.

    python -m benchmarks.lowering [--n 4096] [--k 64]

Lowered for CUDA on a machine without it. Sizes of arrays hardly matter; log-probabilities have programs of their own
for two and for three experts. Compilation takes longer the larger the program is. Prints a Markdown table.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gumbel_moe import routing
from gumbel_moe.distributions import GumbelMatching, SkipAssignment
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.matching import exchange_distances, solve_matching


def programs(n: int, k: int) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """Names, functions and arguments, for `n` datapoints and `k` experts of equal capacity."""
    capacity = -(-n // k)
    key, logits, tokens = jax.random.key(0), jnp.zeros((n, k)), jnp.zeros((n, 8))
    assigned = jnp.arange(n) % k
    yield "solve_matching", lambda s: solve_matching(s, capacity), (logits,)
    yield "exchange_distances", lambda s, z: exchange_distances(s, z, capacity), (logits, assigned)
    yield "GumbelMatching.sample", lambda a, key: GumbelMatching(a, capacity).sample(key), (logits, key)
    for experts in sorted({2, 3, k}):
        places = -(-n // experts)

        def log_prob(a: jax.Array, places: int = places) -> jax.Array:
            return GumbelMatching(a, places).log_prob(jnp.arange(n) % a.shape[1])

        few = (jnp.zeros((n, experts)),)
        yield f"GumbelMatching.log_prob, {experts} experts", log_prob, few
        yield f"the same with its gradient, {experts} experts", jax.value_and_grad(log_prob), few
    yield "SkipAssignment.sample", lambda a, key: SkipAssignment(a, capacity).sample(key), (logits, key)
    yield "SkipAssignment.log_prob", lambda a, z: SkipAssignment(a, capacity).log_prob(z), (logits, assigned)
    for name, entry in routing.ROUTERS.items():
        if entry.kind != "uncorrected":
            router = routing.make_router(name, capacity)
            state = (router.init(k),) if entry.stateful else ()
            yield type(router).__name__, router, (key, logits, *state)
    switch = routing.SwitchRouter(capacity)
    yield "dispatch", lambda x, a, key: routing.dispatch(x, switch(key, a), capacity), (tokens, logits, key)
    outputs = jnp.zeros((k, capacity, 8))
    yield "combine", lambda y, a, key: routing.combine(y, switch(key, a)), (outputs, logits, key)
    skip = routing.SkipRouter(capacity)
    yield "score_function_loss", lambda a, y, key: score_function_loss(skip(key, a), y), (logits, logits[:, 0], key)


def operations(function: Callable[..., Any], *args: Any) -> Counter[str]:
    """StableHLO operations of the program for CUDA, by their kind."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    return Counter(re.findall(r'= "?stablehlo\.(\w+)', text))


def main() -> None:
    """Print a row per program."""
    parser = argparse.ArgumentParser(description="StableHLO operations of the library's programs.")
    parser.add_argument("--n", type=int, default=4096, help="datapoints (default: 4096)")
    parser.add_argument("--k", type=int, default=64, help="experts (default: 64)")
    args = parser.parse_args()
    print("| program | operations | loops |\n|---|---|---|")
    for name, function, inputs in programs(args.n, args.k):
        found = operations(function, *inputs)
        print(f"| {name} | {found.total():,} | {found['while']} |", flush=True)


if __name__ == "__main__":
    main()
