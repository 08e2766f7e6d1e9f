"""What an assignment's prior adds to the surrogate: a term for each datapoint's code, and one of each expert's load."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions import SkipAssignment, UniformAssignment

_PRICE_STEPS = 30


class PriorTerms(NamedTuple):
    """The log-probability of an assignment in the support, up to a constant; of a Gumbel-Matching about that."""

    table: Array  # (n, codes), or (1, codes) where it is the same for all datapoints
    loads: Array  # (k, n + 1) the term of an expert with so many datapoints
    uniform: Array  # () bool: all assignments in the support have the same probability


def prior_terms(prior: Any) -> PriorTerms:
    """Of a `GumbelMatching`, `SkipAssignment` or `UniformAssignment` without a batch shape."""
    n, k = prior.num_datapoints, prior.num_experts
    capacity = jnp.asarray(prior.capacity)
    all_taken = jnp.sum(capacity) == n
    if isinstance(prior, UniformAssignment):
        places = capacity.astype(jnp.result_type(float))
        # Logs of factorials would be larger, and leave less of the difference between two loads.
        taken = jnp.minimum(jnp.arange(n), capacity[:, None] - 1).astype(places.dtype) / places[:, None]
        loads = jnp.concatenate([jnp.zeros((k, 1), places.dtype), jnp.cumsum(jnp.log1p(-taken), axis=1)], axis=1)
        return PriorTerms(jnp.log(places)[None], loads, all_taken)
    log_prob = jax.nn.log_softmax(prior.logits, axis=1)
    if isinstance(prior, SkipAssignment):
        number = jnp.arange(n + 1, dtype=log_prob.dtype)
        kept = jnp.minimum(number, capacity[:, None])
        loads = gammaln(kept + 1) + gammaln(number - kept + 1) - gammaln(number + 1)
        return PriorTerms(jnp.concatenate([log_prob, log_prob], axis=1), loads, jnp.array(False))
    table = log_prob - _clearing_prices(log_prob, capacity)
    return PriorTerms(table, jnp.zeros((k, n + 1), log_prob.dtype), all_taken & _is_separable(prior.logits))


def _is_separable(logits: Array) -> Array:
    """Whether logits are `row[i] + column[j]`, up to rounding: then no full matching is more probable than another."""
    rows, columns = (jnp.mean(logits, axis=axis, keepdims=True) for axis in (1, 0))
    rest = logits - rows - columns + jnp.mean(logits)
    return jnp.max(jnp.abs(rest)) <= 4 * jnp.finfo(logits.dtype).eps * (1 + jnp.max(jnp.abs(logits)))


def _clearing_prices(log_prob: Array, capacity: Array) -> Array:
    """Prices at which independent choices fill the places on average; at least 0 where there are more places.

    At these prices the integrand of a matching's probability has its mode, but for a determinant that changes little
    from one assignment to the next: so the probability is about that of independent choices.
    """
    n = log_prob.shape[0]
    tight = jnp.sum(capacity) == n
    places = jnp.log(capacity.astype(log_prob.dtype))

    def step(_: int, prices: Array) -> Array:
        demand = jax.nn.logsumexp(jax.nn.log_softmax(log_prob - prices, axis=1), axis=0)
        prices = prices + demand - places
        return jnp.where(tight, prices, jnp.maximum(prices, 0))

    return jax.lax.fori_loop(0, _PRICE_STEPS, step, vary_like((log_prob, places), jnp.zeros_like(places)))
