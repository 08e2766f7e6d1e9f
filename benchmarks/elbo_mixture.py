"""A mixture of linear regressions for the study of ELBOs: model, guide, and the ELBO with the assignment summed out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.scipy.stats import norm

N, K = 64, 4
NOISE, SPREAD = 0.5, 0.1  # of an observation under the model; of the lines under the guide
LINES = ((1.0, 2.0), (-1.0, -1.0), (2.0, 0.0), (-2.0, 1.0))  # intercept and slope


class Data(NamedTuple):
    """`(n,)` each."""

    x: Array
    y: Array


def data(seed: int) -> Data:
    """Every datapoint from one of the lines, with noise of 0.3."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.uniform(keys[0], (N,), minval=-2, maxval=2)
    line = jnp.array(LINES)[jax.random.randint(keys[1], (N,), 0, K)]
    return Data(x, line[:, 0] + line[:, 1] * x + 0.3 * jax.random.normal(keys[2], (N,)))


def start(scale: float, seed: int) -> dict[str, Array]:
    """Random lines of that scale, and experts that are all the same to everybody."""
    lines = scale * jax.random.normal(jax.random.key(seed), (K, 2))
    return {"lines": lines, "logits": jnp.zeros((N, K))}


def model(own: Data) -> None:
    """Lines and assignment are latent; there are no other parameters."""
    with numpyro.plate("coefficients", 2, dim=-1), numpyro.plate("experts", K, dim=-2):
        lines: Any = numpyro.sample("line", dist.Normal(0, 3))
    with numpyro.plate("data", N):
        z = numpyro.sample("z", dist.CategoricalProbs(jnp.ones(K) / K))
        numpyro.sample("y", dist.Normal(lines[z, 0] + lines[z, 1] * own.x, NOISE), obs=own.y)


def guide(own: Data) -> None:
    """Parameters: the means of the `lines`, and `logits` of the assignment."""
    mean = numpyro.param("lines", jnp.zeros((K, 2)))
    with numpyro.plate("coefficients", 2, dim=-1), numpyro.plate("experts", K, dim=-2):
        numpyro.sample("line", dist.Normal(mean, SPREAD))
    logits = numpyro.param("logits", jnp.zeros((N, K)))
    with numpyro.plate("data", N):
        numpyro.sample("z", dist.CategoricalLogits(logits))


class Enumerated:
    """The loss for some draws of the lines, all experts of all datapoints summed out.

    It is the mean of any unbiased estimate given those draws (Rao-Blackwell): what it varies by is due to the lines.
    """

    def __init__(self, num_particles: int) -> None:
        self.num_particles = num_particles

    def loss(self, rng_key: Array, param_map: dict[str, Any], model: Any, guide: Any, own: Data) -> Array:
        """With the signature of an ELBO, for this model and guide alone."""
        log_q = jax.nn.log_softmax(param_map["logits"], axis=1)

        def particle(noise: Array) -> Array:
            lines = param_map["lines"] + SPREAD * noise
            of_lines = jnp.sum(norm.logpdf(lines, 0, 3) - norm.logpdf(noise) + jnp.log(SPREAD))
            log_p = norm.logpdf(own.y[:, None], lines[:, 0] + lines[:, 1] * own.x[:, None], NOISE) - jnp.log(K)
            return of_lines + jnp.sum(jnp.exp(log_q) * (log_p - log_q))

        return -jnp.mean(jax.vmap(particle)(jax.random.normal(rng_key, (self.num_particles, K, 2))))
