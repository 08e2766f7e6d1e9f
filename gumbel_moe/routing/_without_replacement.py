"""Several draws of one batch in which a datapoint meets different experts."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits, check_positive_int
from gumbel_moe._experts import keep_first, surplus_weights
from gumbel_moe._keys import check_key
from gumbel_moe._logits import centred
from gumbel_moe.routing._assemble import assemble
from gumbel_moe.routing._record import Routing
from gumbel_moe.routing._skip import SkipRouter
from gumbel_moe.routing._unordered_set import MOST_IN_A_SET, set_weights


def draw_without_replacement(
    key: Array,
    logits: ArrayLike,
    num_draws: int,
    *,
    capacity: int | Sequence[int] | None = None,
    mask: ArrayLike | None = None,
) -> Routing:
    r"""`num_draws` draws of one batch; no datapoint meets an expert twice.

    Every datapoint draws $m$ experts in turn, each from what is left: a set $S_i$, with probability
    $P_i(S) = \sum_{\text{orders}} \prod_r p_{i s_r} / (1 - p_{i s_1} - \dots - p_{i s_{r-1}})$, of which each draw gets
    one at random. With $P_i^{(s)}$ the same for draws from the experts without $s$, renormalised, the weight is

    $$w_i = m \, p_{i z_i} \frac{P_i^{(z_i)}(S_i \setminus z_i)}{P_i(S_i)} ,$$

    the unordered set estimator: the mean over the draws of $w_i 1(z_i = j)$ has the expectation $p_{ij}$, and so has
    each draw by itself. With a `capacity`, every expert keeps a random subset in each draw as in
    [`SkipRouter`][gumbel_moe.routing.SkipRouter], with its weight on top. Probable experts are met for sure, so that
    two draws of a batch left a third to a fifth of the router's noise of two independent ones (page *Which estimator*).

    A baseline that does not depend on these draws leaves the estimate unbiased, such as a `RunningMean` or
    `StudentExperts`. [`leave_one_out`][gumbel_moe.estimators.leave_one_out] does not: the draws are not independent.

    **Arguments:**

    - `key`: a JAX key.
    - `logits`: `(n, k)`, unnormalised log-probabilities; `-inf` forbids an expert for a datapoint.
    - `num_draws`: $m$, at least 1 and at most 8 and `k`. Memory is `O(2^m n)`, time `O(2^m m n)` and a sort.
    - `capacity`: places of an expert in each draw, an int or `(k,)` ints, at least 1; None: no limit.
    - `mask`: `(n,)` bool, false for datapoints that take no part.

    **Returns:** a [`Routing`][gumbel_moe.routing.Routing] of arrays with a leading axis of draws, for `jax.vmap`. A
    datapoint with fewer allowed experts than draws meets each of them once, and is not kept in the other draws.

    **Raises:** `ValueError` for a number of draws or a capacity out of range, and for logits and masks as
    [`SkipRouter`][gumbel_moe.routing.SkipRouter] does. Under `jit` NaN logits give NaN.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import score_function_loss
    >>> from gumbel_moe.routing import draw_without_replacement
    >>> def loss(logits, key):
    ...     routings = draw_without_replacement(key, logits, 2, capacity=4)
    ...     losses = jnp.array([1.0, 3.0, 2.0])[routings.expert]
    ...     return jax.vmap(score_function_loss, (0, 0, None))(routings, losses, 2.0).mean()
    >>> jax.jit(jax.grad(loss))(jnp.zeros((4, 3)), jax.random.key(0)).shape
    (4, 3)

    ```

    Reference: W. Kool, H. van Hoof, M. Welling, *Estimating Gradients for Discrete Random Variables by Sampling without
    Replacement*, arXiv 2002.06043 (2020), the estimator of section 3.
    """
    logits, present = check_logits(logits, mask, exact_rank=2)
    num_draws, k = check_positive_int("num_draws", num_draws), logits.shape[1]
    if num_draws > min(k, MOST_IN_A_SET):
        raise ValueError(f"num_draws must be at most {min(k, MOST_IN_A_SET)} for {k} experts, got {num_draws}")
    places = None if capacity is None else SkipRouter(capacity)._places(k)
    return _draw(check_key(key), logits, present, num_draws, places)


@partial(jax.jit, static_argnames=("num_draws", "places"))
def _draw(key: Array, logits: Array, present: Array | None, num_draws: int, places: tuple[int, ...] | None) -> Routing:
    n, k = logits.shape
    noise_key, order_key, skip_key = jax.random.split(key, 3)
    constant = centred(jax.lax.stop_gradient(logits))
    perturbed = constant + jax.random.gumbel(noise_key, logits.shape, logits.dtype)
    experts = jax.lax.top_k(perturbed, num_draws)[1].astype(jnp.int32)
    experts = jnp.take_along_axis(experts, jnp.argsort(jax.random.bits(order_key, experts.shape), axis=1), axis=1)
    log_probs = jax.nn.log_softmax(constant, axis=1)
    weights = num_draws * set_weights(log_probs, log_probs, experts)[0]

    def one(key: Array, expert: Array, weight: Array) -> Routing:
        kept = weight != 0
        if places is not None:
            queue = kept if present is None else kept & present
            queue, room = jnp.where(queue, expert, k), jnp.asarray(places, jnp.int32)
            kept &= keep_first(queue, jax.random.bits(key, (n,)), room)
            weight = weight * surplus_weights(queue, room).astype(weight.dtype)
        return assemble(logits, expert, present, kept=kept, weight=weight)

    return jax.vmap(one)(jax.random.split(skip_key, num_draws), experts.T, weights.T)
