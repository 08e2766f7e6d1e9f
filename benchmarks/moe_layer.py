"""The routed layer: what router, dispatch and combine take of its step, beside two other ways to the same numbers.

    python -m benchmarks.moe_layer [--tokens 4096] [--experts 8] [--width 256] [--dtype float32] [--repeats 9]
                                   [--out FILE.json]

A step is value and gradient of a layer whose experts go from the width to four times it and back, as many places as
tokens. Each router is timed in the whole step; alone, logits and their gradient included, which is its share; and the
step with its assignment given, which leaves the experts, the buffers and the way to them and back. The experts alone on
full buffers are timed too: what the whole step takes beyond them is router, dispatch and combine together, on a CPU
often less than the noise of the experts' own time. The same assignment then goes through (a) the library's buffers,
(b) a dense one-hot product, `(n, k, capacity)`, as in GShard, and (c) a sort and `jax.lax.ragged_dot`; their outputs
must agree to 1e-5 in float32. Timings are interleaved medians; memory is what the compiled program holds besides its
arguments and results.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.routing import ROUTERS, Routing, combine, dispatch, load_balancing_loss, make_router

_DROPPED = {"expert_choice"}  # no assignment with one expert for each token
TOLERANCE = 1e-5


def parameters(key: Array, k: int, d: int) -> dict[str, Array]:
    """Of the router, in float32, and of all experts."""
    keys = jax.random.split(key, 3)
    return {
        "router": jax.random.normal(keys[0], (d, k)) / np.sqrt(d),
        "up": jax.random.normal(keys[1], (k, d, 4 * d)) / np.sqrt(d),
        "down": jax.random.normal(keys[2], (k, 4 * d, d)) / np.sqrt(4 * d),
    }


def experts(params: dict[str, Array], buffers: Array) -> Array:
    """Each on its buffer `(k, places, d)`."""
    up, down = (params[name].astype(buffers.dtype) for name in ("up", "down"))
    return jnp.einsum("kcf,kfd->kcd", jax.nn.gelu(jnp.einsum("kcd,kdf->kcf", buffers, up)), down)


def through_buffers(params: dict[str, Array], x: Array, routing: Routing, places: int) -> Array:
    """The library's way."""
    return combine(experts(params, dispatch(x, routing, places)), routing, gated=True)


def through_one_hot(params: dict[str, Array], x: Array, routing: Routing, places: int) -> Array:
    """A dense product with a one for every token's expert and place: D. Lepikhin et al., arXiv 2006.16668 (2020)."""
    k = params["router"].shape[1]
    at = jax.nn.one_hot(jnp.where(routing.kept, routing.expert, k), k, dtype=jnp.int32)
    place = jnp.sum((jnp.cumsum(at, axis=0) - 1) * at, axis=1)
    mask = at.astype(x.dtype)[:, :, None] * jax.nn.one_hot(place, places, dtype=x.dtype)[:, None, :]
    buffers = jnp.einsum("nkc,nd->kcd", mask, x)
    return jnp.einsum("nkc,kcd->nd", mask * routing.gate.astype(x.dtype)[:, None, None], experts(params, buffers))


def through_sort(params: dict[str, Array], x: Array, routing: Routing, places: int) -> Array:
    """Tokens sorted by their experts, and a product of ragged groups: no buffers, no places."""
    k = params["router"].shape[1]
    order = jnp.argsort(routing.expert)
    sizes = jnp.bincount(routing.expert, length=k).astype(jnp.int32)
    up, down = (params[name].astype(x.dtype) for name in ("up", "down"))
    rows = jax.lax.ragged_dot(jax.nn.gelu(jax.lax.ragged_dot(x[order], up, sizes)), down, sizes)
    outputs = jnp.zeros_like(x).at[order].set(rows)
    return outputs * jnp.where(routing.kept, routing.gate, 0).astype(x.dtype)[:, None]


WAYS = {"buffers": through_buffers, "one-hot product": through_one_hot, "sort and ragged product": through_sort}


def compiled(step: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], int]:
    """The program, and the bytes it holds on the way; -1 where the backend does not say."""
    program = jax.jit(step).lower(*args).compile()
    memory = program.memory_analysis()
    return program, -1 if memory is None else int(memory.temp_size_in_bytes)


def medians(programs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each, in turns, so that what else the machine does falls on all alike."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        jax.block_until_ready(program())
    for _ in range(repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append(time.perf_counter() - began)
    return {name: float(np.median(each)) for name, each in times.items()}


def routed(name: str, places: int, k: int) -> Callable[[Array, Array], Routing]:
    """A router as a function of a key and logits; the next state of one that has a state is computed too."""
    router = make_router(name, places)
    if not ROUTERS[name].stateful:
        return router

    def route(key: Array, logits: Array) -> Routing:
        routing = router(key, logits, router.init(k))
        # The state is part of the step: kept alive by a term that is zero.
        return routing._replace(gate=routing.gate + 0 * jnp.sum(router.update(router.init(k), routing)))

    return route


def measure(name: str, params: dict[str, Array], x: Array, places: int, repeats: int) -> dict[str, Any]:
    """The layer with one router: whole, with its assignment given, and that assignment by the other ways."""
    key, k = jax.random.key(1), params["router"].shape[1]
    route = routed(name, places, k)

    def logits(params: dict[str, Array]) -> Array:
        return x.astype(jnp.float32) @ params["router"]

    def whole(params: dict[str, Array], key: Array) -> Array:
        routing = route(key, logits(params))
        balance = 0.01 * load_balancing_loss(routing) if name == "switch" else 0.0
        return jnp.mean(through_buffers(params, x, routing, places).astype(jnp.float32) ** 2) + balance

    def router_alone(params: dict[str, Array], key: Array) -> Array:
        routing = route(key, logits(params))
        return jnp.mean(routing.gate + routing.log_prob)

    given = jax.jit(route)(key, logits(params))

    def by(way: Callable[..., Array]) -> Callable[..., Any]:
        def step(params: dict[str, Array], routing: Routing) -> Array:
            return jnp.mean(way(params, x, routing, places).astype(jnp.float32) ** 2)

        return jax.value_and_grad(step)

    programs, memory = {}, {}
    program, memory["whole"] = compiled(jax.value_and_grad(whole), params, key)
    programs["whole"] = lambda: program(params, key)
    only, memory["router"] = compiled(jax.value_and_grad(router_alone), params, key)
    programs["router"] = lambda: only(params, key)
    for way_name, way in WAYS.items():
        one, memory[way_name] = compiled(by(way), params, given)
        programs[way_name] = lambda one=one: one(params, given)
    alone, memory["experts"] = compiled(
        jax.value_and_grad(lambda params, buffers: jnp.mean(experts(params, buffers).astype(jnp.float32) ** 2)),
        params,
        x.reshape(k, -1, x.shape[1]),
    )
    programs["experts"] = lambda: alone(params, x.reshape(k, -1, x.shape[1]))
    seconds = medians(programs, repeats)
    outputs = [
        np.asarray(jax.jit(way, static_argnums=3)(params, x, given, places), np.float32) for way in WAYS.values()
    ]
    return {
        "router": name,
        "seconds": seconds,
        "bytes": memory,
        "router_share": seconds["router"] / seconds["whole"],
        "routing_share": 1 - seconds["experts"] / seconds["whole"],
        "largest_difference": max(float(np.abs(other - outputs[0]).max()) for other in outputs[1:]),
    }


def main() -> int:
    """Measure, print, and write if asked to; 1 where the ways do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("tokens", 4096), ("experts", 8), ("width", 256), ("repeats", 9)):
        parser.add_argument(f"--{option}", type=int, default=default)
    names = [name for name in ROUTERS if ROUTERS[name].limited and name not in _DROPPED]
    parser.add_argument("--routers", default=",".join(names), help="by commas")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of tokens and experts")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.tokens % args.experts:
        parser.error("--tokens must be a multiple of --experts: every place is taken")
    params = parameters(jax.random.key(0), args.experts, args.width)
    x = jax.random.normal(jax.random.key(2), (args.tokens, args.width)).astype(args.dtype)
    columns = ["whole", "router", *WAYS, "experts"]
    print(f"| router | {' | '.join(f'{column}, ms' for column in columns)} | router | all beyond experts |")
    print(f"|---|{'---:|' * (len(columns) + 2)}")
    rows = []
    for name in args.routers.split(","):
        row = measure(name, params, x, args.tokens // args.experts, args.repeats)
        rows.append(row)
        cells = " | ".join(f"{1e3 * row['seconds'][column]:.1f}" for column in columns)
        print(f"| {name} | {cells} | {row['router_share']:.1%} | {row['routing_share']:.1%} |", flush=True)
    for column in columns:
        print(f"{column}: {rows[0]['bytes'][column] / 2**20:.0f} MiB on the way")
    settings = {name: getattr(args, name) for name in ("tokens", "experts", "width", "repeats", "dtype")}
    if args.out:
        write_json(args.out, {**settings, "machine": machine(), "rows": rows})
    apart = max(row["largest_difference"] for row in rows)
    print(f"largest difference between the ways' outputs: {apart:.1e}")
    return int(args.dtype == "float32" and apart > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
