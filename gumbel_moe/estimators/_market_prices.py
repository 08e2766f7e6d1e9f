"""The score of Gumbel-Matching to first order: every token as if drawn alone, at prices that clear the market."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import is_traced
from gumbel_moe._checks import check_capacity, check_positive_int
from gumbel_moe._experts import at_expert
from gumbel_moe._varying import vary_like
from gumbel_moe.routing import Routing


def at_market_prices(routing: Routing, capacity: ArrayLike, *, iterations: int = 50) -> Routing:
    r"""The routing with the log-probabilities of independent draws at the prices $u$ that clear the market.

    $$p_{ij}(u) = \mathrm{softmax}_j(a_{ij} - u_j), \qquad \sum_i p_{ij}(u) = c_j ,$$

    where places are free $\sum_i p_{ij}(u) \le c_j$ with $u_j \ge 0$, and $u_j = 0$ where it is not an equality. Near
    these prices lies the mode of the integral that is the probability $P(z)$ of a matching, so that to first order
    $\partial \log P(z) / \partial a_{ij} = 1(z_i = j) - p_{ij}(u)$, the gradient of the `log_prob` returned; no
    gradient flows through $u$. The error falls with the number of datapoints per expert, and so does the cost beside
    [`matching_log_prob`][gumbel_moe.distributions.matching_log_prob], whose gradient has no such error.

    **Arguments:**

    - `routing`: of [`GumbelMatchingRouter`][gumbel_moe.routing.GumbelMatchingRouter] with `floor=0`, one expert per
      datapoint: with a floor it draws from other logits than those that `routing` holds.
    - `capacity`: of that router, an int or `(k,)` ints.
    - `iterations`: of Sinkhorn's algorithm, which finds the prices; sharper logits need more.

    **Returns:** a [`Routing`][gumbel_moe.routing.Routing] whose `log_prob` `(n,)` and `log_probs` `(n, k)` are those of
    $p(u)$, the rest as it was; for [`assignment_score_loss`][gumbel_moe.estimators.assignment_score_loss].

    **Raises:** `ValueError` for a capacity that is no positive integer or not `(k,)` of them, iterations that are no
    positive int, or several experts per datapoint; `TypeError` when `routing` is no `Routing`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import at_market_prices
    >>> from gumbel_moe.routing import GumbelMatchingRouter
    >>> logits = jnp.array([[2.0, 0.0]] * 4)  # everybody prefers expert 0
    >>> routing = GumbelMatchingRouter(capacity=2, floor=0.0)(jax.random.key(0), logits)
    >>> jnp.exp(at_market_prices(routing, capacity=2).log_probs)[0].round(4).tolist()
    [0.5, 0.5]

    ```

    Reference: the price integral is derived on the documentation's page *The probability of a matching*; the prices
    are those of entropic optimal transport, M. Cuturi, *Sinkhorn Distances*, arXiv 1306.0895 (2013).
    """
    if not isinstance(routing, Routing):
        raise TypeError(f"routing must be a Routing with one expert per datapoint, got {type(routing).__name__}")
    if routing.experts_per_datapoint is not None:
        raise ValueError("routing must have one expert per datapoint: of several no probability is known")
    n, k = routing.log_probs.shape
    places = check_capacity(capacity, k)
    # With a mask, who takes part may be traced: prices from 0 up are right for both cases.
    full = not is_traced(places) and int(np.sum(places, dtype=np.int64)) == n
    return _at_prices(routing, jnp.asarray(places), full, check_positive_int("iterations", iterations))


@partial(jax.jit, static_argnames=("full", "iterations"))
def _at_prices(routing: Routing, places: Array, full: bool, iterations: int) -> Routing:
    logits = routing.log_probs
    present = routing.mask[:, None]
    scores = jnp.where(present, jax.lax.stop_gradient(logits), 0)
    target = jnp.log(places.astype(logits.dtype))

    def balance(_: int, prices: Array) -> Array:
        wanted = jnp.where(present, jax.nn.log_softmax(scores - prices, axis=1), -jnp.inf)
        load = jax.nn.logsumexp(wanted, axis=0)
        # An expert that is forbidden to all cannot be filled at any price.
        prices = jnp.where(jnp.isneginf(load), 0, prices + load - target)
        return prices if full else jnp.maximum(prices, 0)

    start = vary_like((scores, target), jnp.zeros(places.shape, logits.dtype))
    prices = jax.lax.fori_loop(0, iterations, balance, start)
    log_probs = jnp.where(present, jax.nn.log_softmax(jnp.where(present, logits, 0) - prices, axis=1), -jnp.inf)
    own = jnp.where(present[:, 0], at_expert(log_probs, routing.expert), 0)
    failed = jnp.isnan(routing.log_prob)
    return routing._replace(log_prob=jnp.where(failed, jnp.nan, own), log_probs=log_probs)
