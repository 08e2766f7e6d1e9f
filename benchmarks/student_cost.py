"""What student experts cost beside the experts themselves, in time and memory, at the size of a transformer's layer.

    python -m benchmarks.student_cost [--n 16384] [--experts 64] [--width 256] [--rank 4] [--most 4]
                                     [--learn-from 4096] [--repeats 15]

Experts go from the width to four times it and back. Prints, for one training step's value and gradient: the experts
alone, the score-function loss with a running mean, and with a student (its baseline and its update included); times are
compared round by round.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from gumbel_moe.estimators import RunningMean, StudentExperts, shared_network
from gumbel_moe.routing import SkipRouter, combine, dispatch


def parameters(key: Array, k: int, d: int) -> dict[str, Array]:
    """Of the router and of all experts."""
    keys = jax.random.split(key, 3)
    return {
        "router": 0.02 * jax.random.normal(keys[0], (d, k)),
        "up": jax.random.normal(keys[1], (k, d, 4 * d)) / np.sqrt(d),
        "down": jax.random.normal(keys[2], (k, 4 * d, d)) / np.sqrt(4 * d),
    }


def experts(params: dict[str, Array], buffers: Array) -> Array:
    """Each on its buffer."""
    return jnp.einsum("kcf,kfd->kcd", jax.nn.silu(jnp.einsum("kcd,kdf->kcf", buffers, params["up"])), params["down"])


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("n", 16384), ("experts", 64), ("width", 256), ("rank", 4), ("most", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learn-from", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    n, k, d = args.n, args.experts, args.width
    places = n // k
    keys = jax.random.split(jax.random.key(args.seed), 5)
    params = parameters(keys[0], k, d)
    x, y = jax.random.normal(keys[1], (2, n, d))
    router, mean = SkipRouter(places), RunningMean()
    network = shared_network(k, d, rank=args.rank)
    student = StudentExperts(network.apply, optax.sgd(1e-2), network.decode, most=args.most)
    spare = StudentExperts(network.apply, optax.sgd(1e-2), network.decode, most=args.most, learn_from=args.learn_from)
    buffers = jax.random.normal(keys[2], (k, places, d))

    def losses_of(outputs: Array) -> Array:
        return jnp.mean((outputs - y) ** 2, axis=1)

    def alone(params: dict[str, Array], state: Any, key: Array) -> tuple[Array, Any]:
        return jnp.mean(experts(params, buffers) ** 2), state

    def routed(params: dict[str, Array], key: Array) -> tuple[Array, Any]:
        routing = router(key, x @ params["router"])
        return combine(experts(params, dispatch(x, routing, places)), routing), routing

    def plain(params: dict[str, Array], state: Any, key: Array) -> tuple[Array, Any]:
        outputs, routing = routed(params, key)
        return mean.loss(state, routing, losses_of(outputs))

    def with_student(student: StudentExperts) -> Callable[..., Any]:
        def loss(params: dict[str, Array], state: Any, key: Array) -> tuple[Array, Any]:
            outputs, routing = routed(params, key)
            return student.loss(state, routing, outputs, x, losses_of)

        return loss

    cases: dict[str, tuple[Callable[..., Any], Any]] = {
        "experts alone": (alone, mean.init()),
        "running mean": (plain, mean.init()),
        "student": (with_student(student), student.init(network.init(keys[3], d))),
        f"from {args.learn_from:,}": (with_student(spare), spare.init(network.init(keys[3], d))),
    }
    steps = {}
    for name, (loss, state) in cases.items():
        step = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params, state, keys[4]).compile()
        jax.block_until_ready(step(params, state, keys[4]))
        steps[name] = step, state
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.repeats):  # in turn, so that what else the machine does falls on all of them
        for name, (step, state) in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(params, state, keys[4]))
            seconds[name].append(time.perf_counter() - start)
    print(f"n = {n:,}, k = {k}, d = {d}, rank {args.rank}, the {args.most} most probable experts predicted")
    base, without = np.array(seconds["experts alone"]), np.array(seconds["running mean"])
    for name, (step, _) in steps.items():
        memory = step.memory_analysis()
        took = np.array(seconds[name])
        room = memory.temp_size_in_bytes / 2**20 if memory is not None else np.nan
        whole, more = np.median(took / base), np.median((took - without) / base)
        of_experts = f"{whole:5.2f} of the experts, {100 * more:5.1f}% of them beyond a running mean"
        print(f"{name:14} {1000 * np.median(took):8.0f} ms  {of_experts}  {room:7.0f} MiB temporary")


if __name__ == "__main__":
    main()
