r"""A digit's lower half from its upper half: regressions that share out the images, by a latent expert for each.

With inputs $x_i$ (two numbers that sum up the upper half of an image) and a target $y_i$ (one for the lower half),

$$z_i \sim \mathrm{softmax}(g(x_i)), \qquad y_i \sim \mathrm{Normal}(h_{z_i}(x_i), \sigma_{z_i}^2),$$

the gate $g$ and all experts $h_j$ linear. The guide $q(z_i \mid x_i, y_i)$ is a softmax of quadratic functions of
$(x_i, y_i)$. So is the posterior of this model: the best guide is exact, and everything here can be checked.

```python
>>> import jax, numpyro
>>> from numpyro.infer import SVI
>>> from gumbel_moe.estimators import AssignmentELBO
>>> from gumbel_moe.routing import SkipRouter
>>> from models import latent_routing as lr
>>> from models.data import load_halves
>>> data = load_halves(seed=0)
>>> params = lr.starting_params(jax.random.key(0))
>>> lr.log_joint(params, data.train_x, data.train_y).shape
(800, 8)
>>> router = SkipRouter(capacity=100)  # the fair share of 800 datapoints for 8 experts
>>> loss = AssignmentELBO({"z": router}, num_particles=2)
>>> svi = SVI(lr.model, lr.guide, numpyro.optim.Adam(0.05), loss)

```
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

NUM_EXPERTS = 8

Params = dict[str, Array]


def starting_params(key: PRNGKeyArray, num_experts: int = NUM_EXPERTS, num_inputs: int = 2) -> Params:
    """A random gate and random experts, and the guide that is exact for them.

    - `gate`, `experts`: `(1 + d, k)` intercepts and slopes; `noise`: `(k,)` standard deviations.
    - `recognition`: `(k, 2 + d, 2 + d)`, for each expert a quadratic form of $(1, x_i, y_i)$.
    """
    for_gate, for_experts = jax.random.split(key)
    shape = (1 + num_inputs, num_experts)
    params = {
        "gate": jax.random.normal(for_gate, shape) / 2,
        "experts": jax.random.normal(for_experts, shape) / 2,
        "noise": jnp.full(num_experts, 0.7),
    }
    return {**params, "recognition": exact_recognition(params)}


def model(x: Float[Array, "n d"], y: Float[Array, " n"] | None = None, num_experts: int = NUM_EXPERTS) -> None:
    """The NumPyro model: the assignment `z` and the likelihood sit in the plate of the datapoints; no capacity."""
    start = starting_params(jax.random.key(0), num_experts, x.shape[1])
    gate = _param("gate", start["gate"])
    experts = _param("experts", start["experts"])
    noise = _param("noise", start["noise"], constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.CategoricalLogits(_with_ones(x) @ gate))
        # One expert for each datapoint: this is the work that a capacity limits.
        mean = jnp.sum(_with_ones(x) * experts.T[z], axis=1)
        numpyro.sample("y", dist.Normal(mean, noise[z]), obs=y)


def guide(x: Float[Array, "n d"], y: Float[Array, " n"], num_experts: int = NUM_EXPERTS) -> None:
    """The NumPyro guide: who might have made this target from these inputs?"""
    start = starting_params(jax.random.key(0), num_experts, x.shape[1])
    recognition = _param("recognition", start["recognition"])
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.CategoricalLogits(_quadratic(recognition, x, y)))


def log_joint(params: Params, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, "n k"]:
    r"""$\log p(z_i = j, y_i \mid x_i)$ of all experts, enumerated."""
    experts = dist.Normal(_with_ones(x) @ params["experts"], params["noise"])
    return jax.nn.log_softmax(_with_ones(x) @ params["gate"], axis=1) + experts.log_prob(y[:, None])


def log_q(params: Params, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, "n k"]:
    r"""$\log q(z_i = j \mid x_i, y_i)$, the guide's."""
    return jax.nn.log_softmax(_quadratic(params["recognition"], x, y), axis=1)


def log_likelihood(params: Params, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    r"""$\log p(y_i \mid x_i)$ in nats, the assignment summed out."""
    return jax.nn.logsumexp(log_joint(params, x, y), axis=1)


def responsibilities(params: Params, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, "n k"]:
    r"""$p(z_i = j \mid x_i, y_i)$, the exact posterior that the guide is to find."""
    return jax.nn.softmax(log_joint(params, x, y), axis=1)


def elbo(params: Params, x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    r"""Each datapoint's part of the ELBO in nats, all experts enumerated: what the draws estimate."""
    guide_log_prob = log_q(params, x, y)
    return jnp.sum(jnp.exp(guide_log_prob) * (log_joint(params, x, y) - guide_log_prob), axis=1)


def exact_recognition(params: Params) -> Float[Array, "k f f"]:
    r"""The posterior's: $g_j(x) - \log \sigma_j - (y - h_j(x))^2 / 2 \sigma_j^2$ as forms of $(1, x, y)$."""
    gate, experts, noise = params["gate"].T, params["experts"].T, params["noise"]
    residual = jnp.concatenate([-experts, jnp.ones_like(noise)[:, None]], axis=1) / noise[:, None]
    forms = -residual[:, :, None] * residual[:, None, :] / 2
    return forms.at[:, 0, :-1].add(gate).at[:, 0, 0].add(-jnp.log(noise))


def _param(name: str, start: Array, **how: Any) -> Any:
    return numpyro.param(name, start, **how)  # typed as if it could be None


def _with_ones(x: Float[Array, "n d"]) -> Float[Array, "n c"]:
    return jnp.concatenate([jnp.ones((x.shape[0], 1), x.dtype), x], axis=1)


def _quadratic(forms: Float[Array, "k f f"], x: Float[Array, "n d"], y: Float[Array, " n"]) -> Float[Array, "n k"]:
    features = jnp.concatenate([_with_ones(x), y[:, None]], axis=1)
    return jnp.einsum("ni,kij,nj->nk", features, forms, features)
