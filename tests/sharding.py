"""Public functions on eight virtual devices, against one device: a table, and status 1 where they differ."""

import argparse
import sys
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, auto_axes
from jax.sharding import PartitionSpec as P

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment
from gumbel_moe.matching import exchange_distances, solve_matching
from gumbel_moe.routing import ROUTERS, ExpertChoiceRouter, SwitchRouter, combine, dispatch, make_router

DEVICES, N, K, CAPACITY = 8, 8, 3, 3
KEY = jax.random.key(1)
LOGITS = jax.random.normal(jax.random.key(0), (DEVICES, N, K))
VALUE = jnp.tile(jnp.arange(N) % K, (DEVICES, 1))
WEIGHTED = [name for name, entry in ROUTERS.items() if entry.kind == "weighted"]


def there_and_back(router, logits):
    routing = router(KEY, logits)
    return combine(dispatch(logits, routing, N), routing)


# Functions of one batch of logits `(N, K)`, and of an assignment where they take two arguments.
FUNCTIONS = {
    "solve_matching": lambda a: solve_matching(a, CAPACITY)[:3],
    "exchange_distances": (lambda a, z: exchange_distances(a, z, CAPACITY)),
    "solve_matching of two each": lambda a: solve_matching(a, 2 * CAPACITY, experts_per_datapoint=2)[:3],
    "GumbelMatching.sample": lambda a: GumbelMatching(a, CAPACITY).sample(KEY),
    "SkipAssignment.sample": lambda a: SkipAssignment(a, CAPACITY).sample(KEY),
    "GumbelMatching.log_prob": (lambda a, z: GumbelMatching(a, CAPACITY).log_prob(z)),
    "SkipAssignment.log_prob": (lambda a, z: SkipAssignment(a, CAPACITY).log_prob(z)),
    "UniformAssignment.log_prob": (lambda a, z: UniformAssignment(N, (CAPACITY,) * K).log_prob(z)),
    "dispatch, combine": partial(there_and_back, SwitchRouter(CAPACITY)),
    "dispatch, combine of expert choice": partial(there_and_back, ExpertChoiceRouter(CAPACITY)),
    **{name: partial(make_router(name, CAPACITY), KEY) for name in ROUTERS},
    **{
        f"{name} of two each": partial(make_router(name, 2 * CAPACITY, experts_per_datapoint=2), KEY)
        for name in WEIGHTED
    },
}
TAKES_VALUE = {name for name in FUNCTIONS if name == "exchange_distances" or name.endswith("log_prob")}


def batches(function):
    return jax.vmap(function)


def rows(function):
    """The datapoints of one batch spread over the devices."""
    return lambda *args: function(*(x[0] for x in args))


def sharded(function, args, spec):
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))
    return jax.jit(function)(*(jax.device_put(x, NamedSharding(mesh, spec)) for x in args))


def explicit(function, args, spec, out):
    """The function sorts, gathers and multiplies along any axis: it is for XLA to say how what is inside is sharded."""
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x in args]
        return jax.jit(auto_axes(function, axes="d", out_sharding=out))(*placed)


def mapped(function, args, checked):
    def on_one(*parts):
        return jax.tree.map(lambda x: x[None], function(*(x[0] for x in parts)))

    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(on_one, mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=checked))(*args)


# How a function is run on eight devices, and what its result is compared with.
WAYS = {
    "shard_map": (batches, lambda f, args: mapped(f, args, True)),
    "shard_map, check_vma=False": (batches, lambda f, args: mapped(f, args, False)),
    "batches, Auto": (batches, lambda f, args: sharded(batches(f), args, P("d"))),
    "batches, Explicit": (batches, lambda f, args: explicit(batches(f), args, P("d"), P("d"))),
    "rows, Auto": (rows, lambda f, args: sharded(rows(f), args, P(None, "d"))),
    "rows, Explicit": (rows, lambda f, args: explicit(rows(f), args, P(None, "d"), P())),
}
CORE = [
    ("solve_matching", "shard_map"),
    ("solve_matching", "rows, Auto"),
    ("skip", "batches, Explicit"),
    ("dispatch, combine", "rows, Explicit"),
]


def outcome(name, way, spoil=0.0):
    """'same', or what is wrong."""
    args = (LOGITS, VALUE) if name in TAKES_VALUE else (LOGITS,)
    alone, together = WAYS[way]
    expected = jax.jit(alone(FUNCTIONS[name]))(*args)
    try:
        found = together(FUNCTIONS[name], (args[0] + spoil * jnp.eye(N, K), *args[1:]))
    except Exception as error:  # all of them go into the table
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    same = all(np.allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5, equal_nan=True) for a, b in pairs)
    return "same" if same else "another answer"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="all functions in all ways")
    parser.add_argument("--spoil", type=float, default=0.0, help="added to some logits of the sharded run alone")
    options = parser.parse_args()
    assert len(jax.devices()) == DEVICES
    bad = 0
    for name, way in product(FUNCTIONS, WAYS) if options.all else CORE:
        result = outcome(name, way, options.spoil)
        bad += result != "same"
        print(f"{name:36} {way:28} {result}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
