"""Two routed layers with causal attention between, small enough for all assignments of both to be enumerated."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gumbel_moe.distributions import SkipAssignment, enumerate_assignments, matching_log_prob
from gumbel_moe.estimators import at_market_prices
from gumbel_moe.routing import Routing

SEQUENCES, LENGTH, DIM, K = 2, 2, 2, 2
N = SEQUENCES * LENGTH
SHAPE = SEQUENCES, LENGTH
CAPACITY = 2


class Path(NamedTuple):
    """What the network drew on the way."""

    routings: list
    whole: list
    """Of each layer the log-probability of its whole assignment."""
    losses: jax.Array
    """`(sequences, length)`."""


def parameters():
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "routers": jax.random.normal(keys[0], (2, DIM, K)),
        "experts": 3 * jax.random.normal(keys[1], (2, K, DIM, DIM)),
        "attention": jax.random.normal(keys[2], (DIM, DIM)),
    }


def data():
    """Tokens `(n, d)` and targets `(n,)`."""
    x = jax.random.normal(jax.random.key(4), (N, DIM))
    return x, 2 * jnp.sin(3 * x[:, 0])


def tamed(x):
    """Of bounded size, as a normalisation makes it."""
    return x / jnp.sqrt(1 + jnp.sum(x**2, axis=1, keepdims=True))


def attend(params, x):
    """Causal, within each sequence, and with a residual."""
    sequences = tamed(x).reshape(*SHAPE, DIM)
    scores = jnp.einsum("std,de,sre->str", sequences, params["attention"], sequences)
    scores = jnp.where(np.tril(np.ones((LENGTH, LENGTH), bool)), scores, -jnp.inf)
    return x + 3 * jnp.einsum("str,srd->std", jax.nn.softmax(scores, axis=-1), sequences).reshape(N, DIM)


def expert_layer(params, number, x, routing, gated):
    """Each token through its own expert, a skipped one past it."""
    output = jnp.tanh(jnp.einsum("nd,nde->ne", tamed(x), params["experts"][number][routing.expert]))
    gate = jnp.exp(routing.log_prob) if gated else jnp.ones_like(routing.log_prob)
    return x + jnp.where(routing.kept, gate, 0)[:, None] * output


def forward(params, route, *, gated=False):
    """`route(number, logits)` gives a layer's routing, and the log-probability of the whole assignment."""
    x, y = data()
    x, y = x.astype(params["attention"].dtype), y.astype(params["attention"].dtype)
    routings, whole = [], []
    for number in range(2):
        x = attend(params, x)
        routing, log_prob = route(number, tamed(x) @ params["routers"][number])
        x = expert_layer(params, number, x, routing, gated)
        routings.append(routing)
        whole.append(log_prob)
    return Path(routings, whole, ((2 * tamed(attend(params, x)).sum(axis=1) - y) ** 2).reshape(SHAPE))


def as_routing(logits, expert, kept):
    log_probs = jax.nn.log_softmax(logits, axis=1)
    ones = jnp.ones(N, logits.dtype)
    own = jnp.take_along_axis(log_probs, expert[:, None], axis=1)[:, 0]
    return Routing(expert, kept, ones, own, ones, log_probs)


def independent(logits, value):
    """A process: from logits and a value to the routing, and the log-probability of the whole."""
    routing = as_routing(logits, value, jnp.ones(N, bool))
    return routing, jnp.sum(routing.log_prob)


def skip(logits, value):
    process = SkipAssignment(logits, CAPACITY, validate_args=False)
    return as_routing(logits, process.expert(value), process.kept(value)), process.log_prob(value)


def gumbel_matching(logits, value):
    log_prob = matching_log_prob(logits, value, CAPACITY).value
    return as_routing(logits, value, jnp.ones(N, bool)), log_prob


def first_order(path):
    """The routings of a path, with the score of Gumbel-Matching to first order."""
    return [at_market_prices(routing, CAPACITY) for routing in path.routings]


def _skip_values():
    values = np.stack(np.meshgrid(*[range(-K, K)] * N), axis=-1).reshape(-1, N).astype(np.int32)
    possible = np.isfinite(jax.jit(SkipAssignment(jnp.zeros((N, K)), CAPACITY, validate_args=False).log_prob)(values))
    return jnp.asarray(values[possible])


PROCESSES = {
    "independent": (independent, lambda: enumerate_assignments(N, N, K)),
    "skip": (skip, _skip_values),
    "gumbel_matching": (gumbel_matching, lambda: enumerate_assignments(N, CAPACITY, K)),
}
"""Every process, and what makes its values."""


def enumerated(name, terms, *, gated=False):
    """A function of parameters: the mean over all assignments of both layers of `terms`, from a path to a tree of
    scalars, whose gradients are differentiated and whose probabilities are not; and beside it, as `"exact"`, the
    expected loss, in which both are.
    """
    process, make_values = PROCESSES[name]
    values = make_values()
    pairs = jnp.stack(jnp.meshgrid(*[jnp.arange(len(values))] * 2), axis=-1).reshape(-1, 2)

    def one(params, pair):
        path = forward(params, lambda number, logits: process(logits, values[pair[number]]), gated=gated)
        prob = jnp.exp(sum(path.whole))
        surrogates = jax.tree.map(lambda term: jax.lax.stop_gradient(prob) * term, terms(path))
        return {"exact": prob * jnp.mean(path.losses), **surrogates}

    def mean(params):
        return jax.tree.map(lambda each: jnp.sum(each, axis=0), jax.vmap(one, (None, 0))(params, pairs))

    return mean
