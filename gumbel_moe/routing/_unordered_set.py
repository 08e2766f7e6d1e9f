"""The weights of a set of experts that was drawn without replacement, whatever the order it came in."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._experts import at_experts

MOST_IN_A_SET = 8  # the weights go through all subsets of a datapoint's experts


def set_weights(log_probs: Array, drawn_from: Array, experts: Array) -> tuple[Array, Array]:
    r"""The unordered set estimator's weights `(n, m)` of experts $S_i$, and of pairs of them `(n, m, m)`.

    $S_i$ was drawn from $p'_i$, one by one, each from what is left. With $P(S)$ the probability of a set, in any order,
    and $P^{(T)}$ the same for draws from the experts without $T$, renormalised,

    $$w_j = p_j \frac{P^{(j)}(S \setminus j)}{P(S)}, \qquad
    W_{jl} = p_j p_l \frac{P^{(jl)}(S \setminus \{j, l\})}{P(S)} \text{ for } j \ne l, \quad W_{jj} = 0 .$$

    **Arguments:**

    - `log_probs`, `drawn_from`: `(n, k)`, the logarithms of $p$ and $p'$; `-inf` where an expert is forbidden.
    - `experts`: `(n, m)` in any order, `m` at most 8, with `k` or a forbidden one in the places that are left where
      fewer than `m` are allowed: the weights are 0 there.

    Reference: W. Kool, H. van Hoof, M. Welling, *Estimating Gradients for Discrete Random Variables by Sampling without
    Replacement*, arXiv 2002.06043 (2020), section 3, and section 4 for the pairs, its built-in baseline.
    """
    k, m = log_probs.shape[1], experts.shape[1]
    own, own_drawn = (jnp.where(experts < k, at_experts(table, experts), -jnp.inf) for table in (log_probs, drawn_from))
    # Of experts that were all drawn for sure, each counts with its own probability.
    certain = jnp.sum(drawn_from > -jnp.inf, axis=1, keepdims=True) <= m
    p = jnp.exp(own)
    ratio = jnp.exp(own - jnp.where(certain, 0, own_drawn))
    log_orders = _log_orders(drawn_from, experts, certain)
    places = 1 << np.arange(m)
    # The sum over the first draw is that of the empty set: the weights of draws from `p` itself sum to 1 by themselves.
    weight = jnp.where(certain, p, ratio * jax.nn.softmax(log_orders[:, places], axis=1))
    both = jnp.exp(log_orders[:, places[:, None] | places] - log_orders[:, :1, None])
    return weight, jnp.where(certain[..., None], of_two(p), of_two(ratio) * both)


def of_two(factor: Array) -> Array:
    """`(n, m, m)` the products of two different ones of the factors `(n, m)`; 0 on the diagonal."""
    return jnp.where(jnp.eye(factor.shape[1], dtype=bool), 0, factor[:, :, None] * factor[:, None, :])


def _log_orders(log_probs: Array, experts: Array, certain: Array) -> Array:
    r"""`(n, 2^m)` $\log g(T)$ of all subsets $T$ of $S$, bit `r` of which says whether expert `r` is in it.

    $P^{(T)}(S \setminus T) = g(T) \prod_{j \in S \setminus T} p_j$: all orders have the same product of probabilities,
    and differ in what was left when each was drawn. So $g(S) = 1$ and
    $g(T) = \sum_{j \in S \setminus T} g(T \cup j) / (1 - \sum_{l \in T} p_l)$. Where all are `certain`, what comes out
    means nothing.
    """
    m = experts.shape[1]
    # Sums of up to `m` of them are to stay finite; what is this improbable weighs nothing anyway.
    log_p = jnp.where(certain, 0, jnp.maximum(at_experts(log_probs, experts), jnp.finfo(log_probs.dtype).min / (2 * m)))
    others = jnp.all(experts[:, :, None] != jnp.arange(log_probs.shape[1], dtype=experts.dtype), axis=1)
    # What is left is added up from what is there: 1 less the subset would cancel.
    left = jax.nn.logsumexp(log_probs, axis=1, where=others, keepdims=True)
    left = jnp.where(certain, 0, jnp.maximum(left, jnp.finfo(left.dtype).min / (2 * m)))
    for r in range(m):
        left = jnp.concatenate([jnp.logaddexp(left, log_p[:, r : r + 1]), left], axis=1)
    inside = (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 1
    log_orders = jnp.zeros_like(left)
    for size in range(m - 1, -1, -1):
        subsets = np.flatnonzero(inside.sum(axis=1) == size)
        lacking = np.nonzero(~inside[subsets])[1].reshape(len(subsets), m - size)
        ways = jax.nn.logsumexp(log_orders[:, subsets[:, None] | 1 << lacking], axis=2)
        log_orders = log_orders.at[:, subsets].set(ways - left[:, subsets])
    return log_orders
