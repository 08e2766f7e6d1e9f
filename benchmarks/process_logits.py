"""Other logits for Gumbel-Matching to run on than floored ones: what they do to the gradient's noise.

    python -m benchmarks.process_logits [--seed 0] [--steps 8000] [--draws 2000]
                                       [--out docs/results/process_logits.json]

The process may run on any logits that do not depend on the draw: with `q` of that process, the weights `p / q` are
exact. At the trained parameters of `benchmarks.estimators`: tempered logits, floors under probabilities at
market-clearing prices (the prices alone change nothing: where all places are taken, every assignment pays the same),
and an extra expert who computes nothing, where a datapoint can be skipped. Prints a Markdown table.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.estimators import PLACES, ROUTERS, baselines, measure, trained
from gumbel_moe._floor import floored
from gumbel_moe._whole_file import write_json
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.routing import Routing
from models.regions import RegionsMixture

COLUMNS = ("running mean", "student", "experts", "mean square", "largest", "skipped")
_BALANCING = 200  # steps towards the prices


@dataclass(frozen=True)
class Candidate:
    """Gumbel-Matching on changed log-probabilities, perhaps with places where nothing is computed."""

    change: Callable[[Array], Array]
    """From log-probabilities `(n, k)` to the logits of the process."""
    skip_places: float = 0.0
    """As a fraction of the datapoints."""
    skip: float = 0.0
    """The probability of the skip place in the process."""

    def __call__(self, key: Array, logits: Array, *, mask: None = None) -> Routing:
        """A draw with exact weights, as a router's."""
        n, k = logits.shape
        log_probs = jax.nn.log_softmax(logits, axis=1)
        own = jax.nn.log_softmax(self.change(jax.lax.stop_gradient(log_probs)), axis=1)
        places = (PLACES,) * k
        if self.skip:
            own = jnp.concatenate([jnp.log1p(-self.skip) + own, jnp.full((n, 1), jnp.log(self.skip))], axis=1)
            places = (*places, int(self.skip_places * n))
        expert, log_q = GumbelMatching(own, places).sample_with_conditionals(key)
        kept = expert < k
        chosen = jnp.minimum(expert, k - 1)
        log_prob, log_q = (jnp.take_along_axis(x, chosen[:, None], axis=1)[:, 0] for x in (log_probs, log_q))
        weight = jnp.where(kept, jnp.exp(jax.lax.stop_gradient(log_prob) - log_q), 0)
        return Routing(chosen, kept, weight, log_prob, jnp.ones(n, logits.dtype), log_probs)


def priced(log_probs: Array, share: float) -> Array:
    """Log-probabilities at a share of the prices at which every expert is asked for as often as it has places."""

    def step(_: int, prices: Array) -> Array:
        demand = jax.nn.logsumexp(jax.nn.log_softmax(log_probs - prices, axis=1), axis=0)
        return prices + demand - jnp.log(PLACES)

    prices = jax.lax.fori_loop(0, _BALANCING, step, jnp.zeros(log_probs.shape[1]))
    return jax.nn.log_softmax(log_probs - share * prices, axis=1)


def with_floor(log_probs: Array, floor: float = 0.1, power: float = 1.0, share: float = 0.0) -> Array:
    """Tempered, at a share of the prices, and then floored."""
    changed = jax.nn.log_softmax(power * log_probs, axis=1)
    changed = priced(changed, share) if share else changed
    return floored(changed, floor)


CANDIDATES = {
    "as they are": Candidate(partial(with_floor, floor=0.0)),
    "floor 0.1": Candidate(with_floor),
    "times 0.5": Candidate(partial(with_floor, floor=0.0, power=0.5)),
    "times 0.25": Candidate(partial(with_floor, floor=0.0, power=0.25)),
    "times 0.5, floor 0.1": Candidate(partial(with_floor, power=0.5)),
    "times 0.25, floor 0.1": Candidate(partial(with_floor, power=0.25)),
    "half the prices, floor 0.1": Candidate(partial(with_floor, share=0.5)),
    "prices, floor 0.1": Candidate(partial(with_floor, share=1.0)),
    "prices, floor 0.2": Candidate(partial(with_floor, floor=0.2, share=1.0)),
    **{
        f"{where} skip places, {skip:g}, floor {floor:g}": Candidate(partial(with_floor, floor=floor), fraction, skip)
        for where, fraction in (("n / 8", 1 / 8), ("n / 2", 1 / 2))
        for skip, floor in ((0.01, 0.0), (0.1, 0.0), (0.01, 0.1), (0.1, 0.1))
    },
}


def skipped(router: Any, model: RegionsMixture, x: Array, key: Array) -> float:
    """The fraction of the datapoints that nobody computes, over a hundred draws."""
    draws = jax.lax.map(lambda key: router(key, model.logits(x)).kept, jax.random.split(key, 100))
    return float(jnp.mean(~draws))


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Logits for Gumbel-Matching to run on.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("docs/results/process_logits.json"))
    args = parser.parse_args()
    model, states, (x, y) = trained(args.seed, args.steps)
    named = {name: value for name, value in baselines(model, states, x, y).items() if name in COLUMNS}
    key = jax.random.key(args.seed)
    rows = {}
    for name, router in {"skip, for comparison": ROUTERS["skip"], **CANDIDATES}.items():
        row = measure(router, model, x, y, named, args.draws, key)
        rows[name] = {**row, "skipped": skipped(router, model, x, key)}
    write_json(args.out, {"seed": args.seed, "steps": args.steps, "draws": args.draws, "rows": rows})
    print(f"| logits | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
