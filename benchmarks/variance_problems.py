"""Random mixtures for the variance study: what a gradient is linear in, and its exact variance without capacity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

FEATURES = 8
FAVOURED = 4  # one of so many experts is preferred by a skewed router


class Problem(NamedTuple):
    """Squared errors of `k` linear experts on `n` datapoints; a gradient is linear in the weighted draw."""

    x: Array
    """`(n, d)`, a constant included."""
    logits: Array
    """`(n, k)`."""
    slope: Array
    """`(n, k)`: derivative of the loss in the expert's output."""
    loss: Array
    """`(n, k)`: minus the baseline, which is the mean expected loss."""


class Parts(NamedTuple):
    """The gradient's two parts, or something of each of them."""

    expert: Array
    router: Array


def problem(informed: bool, n: int, k: int, scale: float, favour: float, seed: int) -> Problem:
    """Logits of the standard deviation `scale`, drawn without a look at the losses, or (informed) higher where the loss
    is low; a quarter of the experts, the same for everybody, have `favour` nats more.
    """
    random = np.random.default_rng(seed)
    x = np.concatenate([random.standard_normal((n, FEATURES)), np.ones((n, 1))], axis=1)
    error = x @ random.standard_normal((FEATURES + 1, k)) / np.sqrt(FEATURES + 1) - random.standard_normal((n, 1))
    loss = error**2
    logits = scale * random.standard_normal((n, k))
    if informed:
        closeness = -np.log(loss)
        logits = scale * (closeness - closeness.mean()) / closeness.std()
    logits[:, : max(k // FAVOURED, 1)] += favour
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    baseline = np.mean(np.sum(p * loss, axis=1))
    return Problem(*(jnp.asarray(part, jnp.float32) for part in (x, logits, 2 * error, loss - baseline)))


def gradient(own: Problem, weighted: Array) -> Parts:
    """`(d, k)` each, for `weighted` `(n, k)`: `w_i 1(z_i = j)`, or its mean p for the exact gradient."""
    n = own.x.shape[0]
    score = weighted * own.loss
    score = score - jax.nn.softmax(own.logits, axis=1) * jnp.sum(score, axis=1, keepdims=True)
    return Parts(own.x.T @ (weighted * own.slope) / n, own.x.T @ score / n)


def independent_variance(own: Problem) -> Parts:
    """Traces for independent draws, exactly: every datapoint adds its own."""
    n = own.x.shape[0]
    p = jax.nn.softmax(own.logits, axis=1)
    long = jnp.sum(own.x**2, axis=1)
    of_expert = jnp.sum(p * (1 - p) * own.slope**2, axis=1)
    away = 1 - 2 * p + jnp.sum(p**2, axis=1, keepdims=True)  # squared length of onehot(j) - p
    mean = p * own.loss - p * jnp.sum(p * own.loss, axis=1, keepdims=True)
    of_router = jnp.sum(p * own.loss**2 * away, axis=1) - jnp.sum(mean**2, axis=1)
    return Parts(jnp.sum(long * of_expert) / n**2, jnp.sum(long * of_router) / n**2)
