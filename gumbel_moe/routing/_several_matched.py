"""Gumbel-Matching of several experts to a datapoint: the assignment, and how likely each of its pairs was."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._absent import capacity_with_absent, with_absent
from gumbel_moe._experts import at_experts
from gumbel_moe._logits import without_constants
from gumbel_moe.distributions._gumbel_noise import gumbel_noise
from gumbel_moe.matching._exchange import match_and_distances
from gumbel_moe.routing._several_draws import log_inclusion


def matched(key: Array, logits: Array, present: Array | None, capacity: np.ndarray, number: int) -> tuple[Array, Array]:
    r"""The `number` experts `(n, m)` of every datapoint under noise, and the logarithm `(n, m)` of $q$ at each.

    $q_{ij}$ is the probability that $j$ is among the experts of $i$, given all noise but its own. Experts are -1
    throughout where no assignment is feasible, and those of absent datapoints are `k` and beyond.
    """
    n, k = logits.shape
    constant = without_constants(logits, jnp.asarray(capacity), present, number)
    scores = constant + gumbel_noise(key, logits.shape, logits.dtype)
    solved, places = scores, capacity
    if present is not None:
        solved, places = with_absent(scores, present, number), capacity_with_absent(capacity, n, number)
    match, distances = match_and_distances(solved, places, experts_per_datapoint=number)
    experts = match.assignment
    return experts, log_inclusion(at_experts(constant, experts) - thresholds(scores, experts, distances[:k, :k]))


def thresholds(scores: Array, experts: Array, distances: Array) -> Array:
    r"""`(n, m)` what the score of each expert has to exceed to stay: $\max_{l \notin S_i} (s_{il} - D_{lj})$.

    `-inf` where there is no other way.
    """
    k = scores.shape[1]
    chosen = jnp.any(experts[:, :, None] == jnp.arange(k, dtype=experts.dtype), axis=1)
    others = jnp.where(chosen, -jnp.inf, scores)
    towards = distances.T[jnp.clip(experts, 0, k - 1)]
    return jnp.max(others[:, None, :] - towards, axis=2)
