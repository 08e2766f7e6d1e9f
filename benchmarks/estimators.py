"""The noise of gradient estimators where it hurts: the regions, at parameters that have been trained.

    python -m benchmarks.estimators [--seed 0] [--steps 8000] [--draws 2000] [--only PROCESS ...]
                                    [--out docs/results/estimators.json]

Trains the router and the experts on the exact gradient, while a student, a loss critic and a running mean watch draws
of the skip process; then draws the gradient of one fresh batch many times with each process and each baseline. Prints
a Markdown table: traces of the covariance of one draw, of the router's and of the experts' parameters, and the weights.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from tqdm import trange

from gumbel_moe._whole_file import write_json
from gumbel_moe.estimators import (
    LossCritic,
    RunningMean,
    StudentExperts,
    exact_loss,
    score_function_loss,
    shared_network,
)
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter
from models.data import make_regions
from models.regions import RegionsMixture

K, BATCH = 8, 256
PLACES = BATCH // K
FLOORS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4)
ROUTERS: dict[str, Any] = {
    "independent": IndependentRouter(),
    "independent, floor 0.1": IndependentRouter(0.1),
    "skip": SkipRouter(PLACES),
    "skip, floor 0.1": SkipRouter(PLACES, floor=0.1),
    **{f"Gumbel-Matching, floor {floor:g}": GumbelMatchingRouter(PLACES, floor=floor) for floor in FLOORS},
}
_network = shared_network(K, 1)
_critic_network = shared_network(K, 1)
MEAN = RunningMean()
STUDENT = StudentExperts(_network.apply, optax.adam(1e-2), _network.decode)
CRITIC = LossCritic(lambda params, x: _critic_network.apply(params, x)[..., 0], optax.adam(1e-2))
_ONCE = 250  # steps in a compiled loop


def trained(seed: int, steps: int) -> tuple[RegionsMixture, dict[str, Any], tuple[Array, Array]]:
    """The model, the states of the baselines, and a fresh batch."""
    keys = jax.random.split(jax.random.key(seed), 5)
    teacher, model = make_regions(keys[0]), RegionsMixture(keys[1], K)
    optimiser, router = optax.adam(1e-2), SkipRouter(PLACES)
    states = {
        "mean": MEAN.init(),
        "student": STUDENT.init(_network.init(keys[2], 8)),
        "critic": CRITIC.init(_critic_network.init(keys[2], 8)),
    }

    def step(carry: Any, number: Array) -> tuple[Any, None]:
        model, opt, states = carry
        for_batch, for_draw = jax.random.split(jax.random.fold_in(keys[3], number))
        x, y = teacher.sample(for_batch, BATCH)
        gradient = jax.grad(lambda model: exact_loss(model.logits(x), model.all_losses(x, y)))(model)
        outputs, routing, _ = model(for_draw, x, router)
        losses = model.losses(outputs, y)
        states = {
            "mean": MEAN.update(states["mean"], routing, losses),
            "student": STUDENT.update(states["student"], routing, outputs, x),
            "critic": CRITIC.update(states["critic"], routing, losses, x),
        }
        updates, opt = optimiser.update(gradient, opt)
        return (eqx.apply_updates(model, updates), opt, states), None

    many = jax.jit(lambda carry, start: jax.lax.scan(step, carry, start + jnp.arange(_ONCE))[0])
    carry = model, optimiser.init(eqx.filter(model, eqx.is_array)), states
    for start in trange(0, steps, _ONCE, desc="training", disable=None):
        carry = many(carry, jnp.int32(start))
    return carry[0], carry[2], teacher.sample(keys[4], BATCH)


def baselines(model: RegionsMixture, states: dict[str, Any], x: Array, y: Array) -> dict[str, Array]:
    """By name, what goes to the score term; the true losses are what no estimator has."""
    all_losses = model.all_losses(x, y)
    return {
        "running mean": MEAN.baseline(states["mean"]),
        "true mean of the datapoint": jnp.sum(jax.nn.softmax(model.logits(x)) * all_losses, axis=1),
        "loss critic": CRITIC.baseline(states["critic"], x),
        "student": STUDENT.baseline(states["student"], x, lambda outputs: model.losses(outputs, y)),
    }


def measure(
    router: Any, model: RegionsMixture, x: Array, y: Array, named: dict[str, Array], draws: int, key: Array
) -> dict[str, float]:
    """Traces of the covariance of one draw, and what the weights are like."""

    def one(key: Array) -> dict[str, Any]:
        def loss(model: RegionsMixture, baseline: Array) -> tuple[Array, Array]:
            outputs, routing, _ = model(key, x, router)
            return score_function_loss(routing, model.losses(outputs, y), baseline), routing.weight  # pyright: ignore

        found = {name: jax.grad(loss, has_aux=True)(model, baseline) for name, baseline in named.items()}
        first, weight = next(iter(found.values()))
        routers = {name: flat(gradient.router_network) for name, (gradient, _) in found.items()}
        return {"routers": routers, "experts": flat(first.experts), "weight": weight}

    drawn = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=50))(jax.random.split(key, draws))

    def trace(rows: Array) -> float:
        return float(jnp.sum(jnp.var(rows, axis=0, ddof=1)))

    return {
        **{name: trace(drawn["routers"][name]) for name in named},
        "experts": trace(drawn["experts"]),
        "mean square": float(jnp.mean(drawn["weight"] ** 2)),
        "largest": float(jnp.max(drawn["weight"])),
    }


def flat(tree: Any) -> Array:
    """All arrays of a pytree, in one."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))])


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", nargs="+", default=list(ROUTERS), choices=ROUTERS, metavar="PROCESS")
    parser.add_argument("--out", type=Path, default=Path("docs/results/estimators.json"))
    args = parser.parse_args()
    model, states, (x, y) = trained(args.seed, args.steps)
    demand = float(jnp.max(jnp.sum(jax.nn.softmax(model.logits(x)), axis=0))) / PLACES
    found = partial(measure, model=model, x=x, y=y, named=baselines(model, states, x, y), draws=args.draws)
    rows = {name: found(router, key=jax.random.key(args.seed)) for name, router in ROUTERS.items() if name in args.only}
    settings = {"seed": args.seed, "steps": args.steps, "draws": args.draws, "demand": demand}
    write_json(args.out, {**settings, "rows": rows})
    columns = list(next(iter(rows.values())))
    print(f"demand of the busiest expert over its places: {demand:.2f}\n\n| process | {' | '.join(columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' for column in columns)} |")
    print(json.dumps(settings))


if __name__ == "__main__":
    main()
