"""What is timed on a device: the matching, its draw and probability, every router, and a layer's training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.log_prob import compiled, normal_logits, round_robin, timed
from gumbel_moe.distributions import GumbelMatching, matching_log_prob
from gumbel_moe.distributions._gumbel_noise import gumbel_noise
from gumbel_moe.estimators import score_function_loss
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import ROUTERS, GumbelMatchingRouter, Routing, SkipRouter, combine, dispatch, make_router

PATIENCE = 1.0  # seconds: what would take longer is repeated less often

Row = dict[str, Any]


class Program(NamedTuple):
    """A function and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Layer(NamedTuple):
    """Widths of the mixture's layer: of a token, and of an expert's hidden units."""

    width: int
    hidden: int


def programs(n: int, k: int, layer: Layer, seed: int) -> dict[str, Program]:
    """All that is timed at one size, by name, the most telling first."""
    capacity = n // k
    logits, key = normal_logits((n, k), 1.0, seed), jax.random.key(seed)

    def log_prob(logits: Array, assignment: Array) -> Array:
        return matching_log_prob(logits, assignment, capacity).value

    scores = logits + gumbel_noise(key, (n, k), logits.dtype)
    return {
        "solve": Program(lambda s: solve_matching(s, capacity), (scores,)),
        "draw": Program(lambda key, a: GumbelMatching(a, capacity).sample_with_conditionals(key), (key, logits)),
        "noise": Program(lambda key: gumbel_noise(key, (n, k), jnp.float32), (key,)),
        **steps(n, k, layer, seed),
        **{f"router {name}": Program(router, (key, logits)) for name, router in routers(capacity).items()},
        "log_prob": Program(log_prob, (logits, round_robin(n, k))),
        "log_prob and gradient": Program(jax.value_and_grad(log_prob), (logits, round_robin(n, k))),
    }


def routers(capacity: int) -> dict[str, Callable[..., Any]]:
    """Every router, at equal capacities; without its weights one takes no other time."""
    return {name: make_router(name, capacity) for name, entry in ROUTERS.items() if entry.kind != "uncorrected"}


def steps(n: int, k: int, layer: Layer, seed: int) -> dict[str, Program]:
    """Training steps of one layer of experts with two dense layers each, and the buffers there and back alone."""
    width, hidden = layer
    capacity, key = n // k, jax.random.key(seed)
    keys = jax.random.split(key, 5)
    tokens, targets = (jax.random.normal(key, (n, width)) for key in keys[:2])
    shapes = {"router": (width, k), "inner": (k, width, hidden), "outer": (k, hidden, width)}
    params = {
        name: jax.random.normal(key, shape) / shape[-2] ** 0.5
        for key, (name, shape) in zip(keys[2:], shapes.items(), strict=True)
    }

    def step(router: Callable[..., Routing]) -> Callable[..., Any]:
        def loss(params: dict[str, Array], key: Array, tokens: Array, targets: Array) -> Array:
            routing = router(key, tokens @ params["router"])
            buffers = dispatch(tokens, routing, capacity)
            hidden = jax.nn.gelu(jnp.einsum("kcd,kdh->kch", buffers, params["inner"]))
            outputs = combine(jnp.einsum("kch,khd->kcd", hidden, params["outer"]), routing)
            return score_function_loss(routing, jnp.mean((outputs - targets) ** 2, axis=1), 1.0)

        return jax.value_and_grad(loss)

    def there_and_back(tokens: Array, routing: Routing) -> Array:
        return combine(dispatch(tokens, routing, capacity), routing)

    batch, some = (params, key, tokens, targets), SkipRouter(capacity)(key, tokens @ params["router"])
    return {
        "layer's step, gumbel_matching": Program(step(GumbelMatchingRouter(capacity)), batch),
        "layer's step, skip": Program(step(SkipRouter(capacity)), batch),
        "dispatch and combine": Program(there_and_back, (tokens, some)),
    }


def compile_one(program: Program) -> tuple[Callable[[], Any], float]:
    """A call of the compiled program, and the seconds that compiling took."""
    executable, seconds = compiled(program.function, *program.arguments)
    return lambda: executable(*program.arguments), seconds


def time_one(call: Callable[[], Any], repeats: int) -> Row:
    """Median and least seconds of a warm call."""
    timed(call)
    _, first = timed(call)
    number = max(1, min(repeats, int(PATIENCE / first)))
    seconds = [timed(call)[1] for _ in range(number)]
    return {"seconds": float(np.median(seconds)), "least_seconds": min(seconds), "repeats": number}
