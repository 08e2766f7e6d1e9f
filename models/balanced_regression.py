r"""Regressions in groups of known size and unknown membership, on wines of three cultivars.

Flavanoids, colour intensity and proline are regressed on total phenols, with lines and noises of each cultivar. A few
wines are labelled; of the others only is known how many each cultivar has, 59, 71 and 48 in all. Measurements are
standardised over all wines.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from gumbel_moe.distributions import UniformAssignment
from models.data import RESPONSES, Wines


class Lines(NamedTuple):
    """A regression of each response in each group."""

    intercept: Float[Array, "k d"]
    slope: Float[Array, "k d"]
    noise: Float[Array, "k d"]


def labelled_only(wines: Wines) -> Lines:
    """The regressions of the labelled wines."""
    with numpyro.plate("response", len(RESPONSES), dim=-1), numpyro.plate("group", len(wines.sizes), dim=-2):
        lines = Lines(
            jnp.asarray(numpyro.sample("intercept", dist.Normal(0, 1))),
            jnp.asarray(numpyro.sample("slope", dist.Normal(0, 1))),
            jnp.asarray(numpyro.sample("noise", dist.LogNormal(-0.7, 0.5))),
        )
    with numpyro.plate("labelled", len(wines.label)):
        numpyro.sample("labelled_y", predicted(lines, wines.label, wines.labelled_x), obs=wines.labelled_y)
    return lines


def balanced(wines: Wines) -> None:
    """Known sizes: all ways to divide the wines are equally probable."""
    lines = labelled_only(wines)
    z = jnp.asarray(numpyro.sample("z", UniformAssignment(len(wines.x), wines.sizes)))
    with numpyro.plate("wine", len(wines.x)):
        numpyro.sample("y", predicted(lines, z, wines.x), obs=wines.y)


def mixture(wines: Wines, *, known_shares: bool = False) -> None:
    """The usual mixture: memberships are independent and summed out; the groups' shares are unknown, or `sizes / n`."""
    lines = labelled_only(wines)
    known = jnp.asarray(wines.sizes, jnp.float32) / len(wines.x)
    share = known if known_shares else jnp.asarray(numpyro.sample("share", dist.Dirichlet(jnp.ones(len(wines.sizes)))))
    with numpyro.plate("wine", len(wines.x)):
        numpyro.factor("y", jax.nn.logsumexp(jnp.log(share) + log_likelihoods(lines, wines), axis=1))


def predicted(lines: Lines, group: Int[Array, " n"], x: Float[Array, " n"]) -> dist.Distribution:
    """The responses `(n, d)` of wines whose groups are given."""
    mean = lines.intercept[group] + lines.slope[group] * x[:, None]
    return dist.Normal(mean, lines.noise[group]).to_event(1)


def log_likelihoods(lines: Lines, wines: Wines) -> Float[Array, "n k"]:
    """The log-density of every unlabelled wine's responses under every group, in nats."""

    def of_group(j: Array) -> Array:
        return jnp.asarray(predicted(lines, jnp.full(len(wines.x), j), wines.x).log_prob(wines.y))

    return jax.vmap(of_group, out_axes=1)(jnp.arange(len(wines.sizes)))
