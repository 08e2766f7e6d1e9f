"""Pictures of a posterior over two groups of known size: the example of `docs/numpyro.md`, with more draws.

    python -m benchmarks.co_assignment [--seed 0] [--draws 2000] [--out docs/images]

Writes `co_assignment.png`, who shares a group with whom, and `group_forest.png`, ArviZ's intervals of the continuous
sites, chain by chain.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.infer import MCMC, NUTS, HMCGibbs

matplotlib.use("Agg")
from arviz_plots import plot_forest
from arviz_stats import summary  # pyright: ignore[reportPrivateImportUsage]

from gumbel_moe._whole_file import whole_file
from gumbel_moe.diagnostics import assignment_report
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.mcmc import swap_and_move, without_prior

N, K = 24, 2
CENTRES = jnp.array([-1.5, 1.5])
CHAINS, WARMUP = 4, 500


def data() -> Array:
    """Twelve values of each group, in order within the group."""
    noise = jax.random.normal(jax.random.key(1), (K, N // K))
    return jnp.sort(CENTRES[:, None] + noise, axis=1).reshape(-1)


def model(y: Array) -> None:
    """The sizes of the groups are known, who is in which is not."""
    with numpyro.plate("groups", K):
        loc: Any = numpyro.sample("loc", dist.Normal(CENTRES, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    z = numpyro.sample("z", GumbelMatching(jnp.zeros((N, K)), capacity=N // K))
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(loc[z], noise), obs=y)


def posterior(draws: int, seed: int) -> dict[str, Array]:
    """By site, `(chains, draws, ...)`."""
    y = data()
    kernel = HMCGibbs(NUTS(without_prior(model, "z")), gibbs_fn=swap_and_move(model, "z", (y,)), gibbs_sites=["z"])
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=draws, num_chains=CHAINS, chain_method="sequential")
    mcmc.run(jax.random.key(seed), y)
    return mcmc.get_samples(group_by_chain=True)


def main() -> None:
    """Sample, draw, and print ArviZ's table."""
    parser = argparse.ArgumentParser(description="Pictures of a posterior over two groups of known size.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=2000, help="of each of the four chains")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = assignment_report(posterior(args.draws, args.seed), "z", K, experts=["low", "high"])
    report.plot(args.out / "co_assignment.png", groups=np.arange(N) // (N // K))
    size = {"figsize": (6, 2.4)}
    forest = plot_forest(report.data, var_names=["loc", "noise"], backend="matplotlib", figure_kwargs=size)
    with whole_file(args.out / "group_forest.png") as part:
        forest.savefig(part, format="png", dpi=110, bbox_inches="tight")
    print(report)
    print(summary(report.data, round_to=3).to_string())


if __name__ == "__main__":
    main()
