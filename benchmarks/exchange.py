"""What a training step of the language model exchanges between devices and holds on each, counted, not timed.

    python -m benchmarks.exchange [--width 160] [--layers 4] ... [--out FILE.json]

The step is compiled for meshes of virtual devices, and the bytes that every collective operation of the program gives a
device are added up, those inside loops as often as the loops run; a device's own part, which it need not be sent, is
among them. Memory is what the compiled program holds on a device. Times of one device's matchings are medians.
"""

import argparse
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import SwitchRouter, capacity_for
from models.transformer import (
    AXES,
    EVERYWHERE,
    SEQUENCES,
    Groups,
    LanguageModel,
    Sizes,
    make_mesh,
    model_specs,
    on_mesh,
)

VIRTUAL = 8  # devices
COLLECTIVES = "all-to-all", "all-gather", "reduce-scatter", "all-reduce", "collective-permute"
MESHES = (2, 4), (1, 8), (8, 1)
BITS = {"pred": 8, "s8": 8, "u8": 8, "s16": 16, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64}
SIZES = tuple(2**power for power in range(8, 17))  # of groups, in tokens

_BEGINS = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z\-]+)\(")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:body|to_apply|calls|called_computations|branch_computations)=\{?((?:%[\w.\-]+(?:, )?)+)")


def exchanged(program: str) -> dict[str, dict[str, int]]:
    """Bytes that a device has of each kind of collective in a step, and how many of them there are, from the text of a
    compiled program.

    `layers` are those inside loops, `once` those outside.
    """
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if begins := _BEGINS.match(line):
            lines = computations.setdefault(begins[2], [])
            entry = begins[2] if begins[1] else entry
        else:
            lines.append(line)
    found = {"layers": Counter(), "once": Counter()}

    def walk(name: str, times: int, inside: bool) -> None:
        for line in computations[name]:
            if not (operation := _OPERATION.match(line)):
                continue
            kind = operation[2].removesuffix("-start")
            if kind in COLLECTIVES:
                where = found["layers" if inside else "once"]
                where[f"{kind} bytes"] += times * _bytes(operation[1])
                where[f"{kind} operations"] += times
            loop = kind == "while"
            trips = int(known[1]) if loop and (known := _TRIPS.search(line)) else 1
            for called in _CALLED.findall(line):
                for each in re.findall(r"[\w.\-]+", called):
                    walk(each, times * trips, inside or (loop and trips > 1))

    walk(entry, 1, False)
    return {place: dict(counts) for place, counts in found.items()}


def _bytes(shape: str) -> int:
    return sum(
        BITS[kind] // 8 * int(np.prod([int(size) for size in sizes.split(",") if size], dtype=np.int64))
        for kind, sizes in _SHAPE.findall(shape)
    )


def held(tree: Any) -> int:
    """Bytes of arrays on one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def count(sizes: Sizes, devices: tuple[int, int], batch: int, context: int, groups: int | None) -> dict[str, Any]:
    """Of a step on a mesh: the losses' mean, its gradient, and Adam."""
    mesh, optimiser = make_mesh(*devices), optax.adam(1e-3)
    router = SwitchRouter(capacity_for(batch * context // (groups or 1), sizes.experts))

    def first() -> tuple[LanguageModel, Any]:
        model = LanguageModel(jax.random.key(0), sizes)
        return model, optimiser.init(eqx.filter(model, eqx.is_array))

    def loss(model: LanguageModel, windows: Array, key: Array) -> Array:
        logits, _ = model(key, windows[:, :-1], router, groups=Groups(groups).on(mesh))
        return jax.lax.pmean(jnp.mean(model.losses(logits, windows[:, 1:])), AXES)

    def step(state: tuple[LanguageModel, Any], windows: Array, key: Array) -> Any:
        model, inner = state
        value, gradient = jax.value_and_grad(on_mesh(mesh, loss, EVERYWHERE))(model, windows, key)
        updates, inner = optimiser.update(gradient, inner)
        return (eqx.apply_updates(model, updates), inner), value

    where = jax.tree.map(lambda spec: NamedSharding(mesh, spec), model_specs(jax.eval_shape(first)))
    state = jax.jit(first, out_shardings=where)()
    windows = jax.device_put(np.zeros((batch, context + 1), np.int32), NamedSharding(mesh, SEQUENCES))
    everywhere = NamedSharding(mesh, EVERYWHERE)
    compiled = jax.jit(step, out_shardings=(where, everywhere))
    program = compiled.lower(state, windows, jax.device_put(jax.random.key(1), everywhere)).compile()
    memory = program.memory_analysis()
    return {
        "data": devices[0],
        "expert": devices[1],
        "batch": batch,
        "groups": groups or 1,
        "exchanged": exchanged(program.as_text() or ""),
        "parameter_bytes": held(state[0]),
        "optimiser_bytes": held(state[1]),
        "bytes_on_the_way": -1 if memory is None else int(memory.temp_size_in_bytes),
    }


def matching_seconds(n: int, k: int, repeats: int = 7) -> float:
    """Of a group: random scores, equal capacities, in a program of its own."""
    scores = jax.random.normal(jax.random.key(n), (n, k))
    solve = jax.jit(lambda scores: solve_matching(scores, n // k).assignment)
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(solve(scores))
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def main() -> None:
    """Count, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"width": 160, "layers": 4, "experts": 8, "expert_width": 480, "batch": 16, "context": 128}
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", VIRTUAL)
    sizes = Sizes(args.layers, args.width, args.width // 32, args.experts, args.expert_width)
    # The batch stays; it grows with the devices; it stays and is routed together.
    plans = [(devices, args.batch, VIRTUAL) for devices in MESHES]
    plans += [((1, number), args.batch * number // VIRTUAL, number) for number in (1, 2, 4)]
    plans += [((2, 4), args.batch, None)]
    rows = []
    print("| data x expert | sequences | groups | all-to-all, a layer | other, a layer | once | state | on the way |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for devices, batch, groups in tqdm(plans, disable=None):
        row = count(sizes, devices, batch, args.context, groups)
        rows.append(row)
        layers, once = ({name: x for name, x in part.items() if "bytes" in name} for part in row["exchanged"].values())
        swapped = layers.pop("all-to-all bytes", 0) / args.layers
        figures = [swapped, sum(layers.values()) / args.layers, sum(once.values())]
        figures += [row["parameter_bytes"] + row["optimiser_bytes"], row["bytes_on_the_way"]]
        cells = " | ".join(f"{figure / 1e6:.2f}" for figure in figures)
        print(f"| {devices[0]} x {devices[1]} | {batch} | {row['groups']} | {cells} |", flush=True)
    times = [{"n": n, "k": k, "seconds": matching_seconds(n, k)} for k in (8, 64) for n in SIZES if n >= 8 * k]
    print("\n| tokens of a group | experts | matching, ms | microseconds a token |\n|---:|---:|---:|---:|")
    for row in times:
        print(f"| {row['n']:,} | {row['k']} | {1e3 * row['seconds']:.2f} | {1e6 * row['seconds'] / row['n']:.3f} |")
    if args.out:
        settings = {name: getattr(args, name) for name in defaults}
        kept = {"machine": machine(), "settings": settings, "rows": rows, "matching": times}
        write_json(args.out, kept)


if __name__ == "__main__":
    main()
