"""A mixture of linear regressions with unknown membership: model, guide, and the enumerated gradient of its ELBO."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.stats import norm

NOISE = 0.5


def data(n, k, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.uniform(keys[0], (n,), minval=-2, maxval=2)
    lines = 2 * jax.random.normal(keys[1], (k, 2))
    z = jax.random.randint(keys[2], (n,), 0, k)
    return x, lines[z, 0] + lines[z, 1] * x + 0.3 * jax.random.normal(keys[3], (n,))


def parameters(n, k, scale=1.0, seed=1):
    keys = jax.random.split(jax.random.key(seed), 2)
    return {"lines": jax.random.normal(keys[0], (k, 2)), "logits": scale * jax.random.normal(keys[1], (n, k))}


def model(x, y, k, spread=None):
    """With `spread` the lines are a latent site, else parameters."""
    if spread is None:
        lines = numpyro.param("lines", jnp.zeros((k, 2)))
    else:
        lines = numpyro.sample("line", dist.Normal(0, 3).expand([k, 2]).to_event(2))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.arange(1.0, k + 1) / (k * (k + 1) / 2)))
        numpyro.sample("y", dist.Normal(lines[z, 0] + lines[z, 1] * x, NOISE), obs=y)


def guide(x, y, k, spread=None):
    if spread is not None:
        numpyro.sample("line", dist.Normal(numpyro.param("lines", jnp.zeros((k, 2))), spread).to_event(2))
    logits = numpyro.param("logits", jnp.zeros((len(x), k)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Categorical(logits=logits))


def enumerated_loss(params, x, y, k):
    """Minus the ELBO of the model without `spread`, all experts of all datapoints enumerated."""
    log_q = jax.nn.log_softmax(params["logits"], axis=1)
    log_prior = jnp.log(jnp.arange(1.0, k + 1) / (k * (k + 1) / 2))
    lines = params["lines"]
    log_likelihood = norm.logpdf(y[:, None], lines[:, 0] + lines[:, 1] * x[:, None], NOISE)
    return -jnp.sum(jnp.exp(log_q) * (log_prior + log_likelihood - log_q))


def gradients(elbo, params, args, draws, seed=2):
    """`draws` gradients, as one matrix `(draws, parameters)`."""

    def one(key):
        gradient = jax.jit(jax.grad(lambda p: elbo.loss(key, p, model, guide, *args)))(params)
        return jnp.concatenate([gradient["lines"].ravel(), gradient["logits"].ravel()])

    return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(jax.random.split(jax.random.key(seed), draws))
