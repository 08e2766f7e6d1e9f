"""The Gumbel-Matching process: perturb the logits with Gumbel noise, then solve the balanced matching exactly."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.util import validate_sample

from gumbel_moe._absent import capacity_with_absent, with_absent
from gumbel_moe._batch import over_leading_axes
from gumbel_moe._checks import check_draws, check_positive, check_positive_int, check_room
from gumbel_moe._experts import at_expert
from gumbel_moe._logits import without_constants
from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._base import LogitsAssignment, assignment_support, check_site_key
from gumbel_moe.distributions._capacities import with_capacity
from gumbel_moe.distributions._constraints import balanced_assignment
from gumbel_moe.distributions._gumbel_noise import gumbel_noise
from gumbel_moe.distributions._matching_log_prob import DEFAULT_DRAWS, Estimate, Method, check_method, matching_log_prob
from gumbel_moe.matching import solve_matching
from gumbel_moe.matching._exchange import match_and_distances
from gumbel_moe.matching._solve import check_solved


class GumbelMatching(LogitsAssignment):
    r"""The best capacitated assignment of randomly perturbed logits.

    With i.i.d. standard Gumbel noise $G$ and $s = a + G$,

    $$z = \arg\max_z \sum_i s_{i z_i} \quad \text{subject to} \quad \#\{i : z_i = j\} \le c_j .$$

    It is *not* the Gibbs distribution $P(z) \propto \exp \sum_i a_{i z_i}$ over the feasible assignments.

    A value is `(n,)` int32, the expert of every datapoint, `k` for one that `mask` leaves out. Without a feasible
    matching (`-inf` logits, or traced capacities that are too small), `sample` raises where it can see it; under `jit`
    it gives -1 throughout, and conditionals that are NaN.

    **Arguments:**

    - `logits`: `(..., n, k)`, unnormalised log-probabilities $a$; leading axes are the batch shape. `-inf` forbids an
      expert for a datapoint.
    - `capacity`: an int or `(k,)` ints, at least 1, with `sum(capacity) >= n`, or at least the number of datapoints
      that `mask` leaves in. For a batch also `(..., k)`, whose leading axes broadcast against the batch shape; the
      attribute has as many axes as the batch and one.
    - `mask`: `(..., n)` bool, false for datapoints that take no part, such as padding: they take no place and count
      nowhere, and their logits may hold anything. By default all take part.
    - `num_draws`, `target_error`: how many price vectors `log_prob` draws for more than three experts, and the standard
      error in nats at which it may stop, as in [`matching_log_prob`][gumbel_moe.distributions.matching_log_prob].
    - `method`: how `log_prob` integrates, as there: by default by quadrature for at most three experts.
    - `experts_per_datapoint`: None, for one. No formula is known for the probability of a whole assignment of several
      experts to each datapoint; [`GumbelMatchingRouter`][gumbel_moe.routing.GumbelMatchingRouter] draws them, with
      importance weights, which do not need it.

    **Raises:** `ValueError` for logits with fewer than two axes, NaN, `+inf` or a datapoint with every expert
    forbidden, for a capacity that is no positive integer, for capacities that cannot hold the datapoints, for a mask of
    another shape or type, when `num_draws` or `target_error` is not positive, for a `method` that there is not for so
    many experts, and for `experts_per_datapoint`; `TypeError` for logits that are not floating point. With
    `validate_args=False`, shapes and dtypes alone are looked at here, and values by `sample` and `log_prob`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.distributions import GumbelMatching
    >>> d = GumbelMatching(jnp.zeros((6, 2)), capacity=3)
    >>> value, log_q = d.sample_with_conditionals(jax.random.key(0))
    >>> int(value.sum()), log_q.shape
    (3, (6, 2))
    >>> print(f"{jnp.exp(d.log_prob(value)):.4f}")  # one of 20 equally likely assignments
    0.0500

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, *Unbiased Gradient Estimation with Balanced Assignments for Mixtures of
    Experts*, arXiv 2109.11817 (2021); for permutations, G. Mena et al., *Learning Latent Permutations with
    Gumbel-Sinkhorn Networks*, arXiv 1802.08665 (2018).
    """

    pytree_aux_fields = ("num_draws", "target_error", "method")
    why_one_expert = "no formula is known for the probability of a whole assignment of several experts per datapoint"

    def __init__(
        self,
        logits: ArrayLike,
        capacity: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        experts_per_datapoint: None = None,
        num_draws: int = DEFAULT_DRAWS,
        target_error: float | None = None,
        method: Method | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.num_draws = check_positive_int("num_draws", num_draws)
        self.target_error = None if target_error is None else check_positive("target_error", target_error)
        super().__init__(
            logits, capacity, mask=mask, experts_per_datapoint=experts_per_datapoint, validate_args=validate_args
        )
        self.method: Method | None = check_method(method, self.num_experts)

    def validate_args(self, strict: bool = True) -> None:
        """As for every assignment distribution; and the experts must have room for all datapoints."""
        super().validate_args(strict)
        check_room(self.capacity, self.event_shape[0], self.present)

    @assignment_support
    def support(self) -> Constraint:
        """Assignments in which no expert holds more than its capacity."""
        return balanced_assignment(self.capacity, self.present)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + batch_shape + (n,)`, int32."""
        match = self._solved(solve_matching, key, sample_shape)
        check_solved(match)
        return match.assignment

    def sample_with_conditionals(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        r"""Draws, and each datapoint's distribution given the noise of all the others.

        $$q_{ij} = P(z_i = j \mid G_{i'}, i' \ne i) = \mathrm{softmax}_j (a_{ij} - D_{j z_i})$$

        with $D$ the [exchange distances][gumbel_moe.matching.exchange_distances] of the perturbed scores. The weights
        $w_i = p_{i z_i} / q_{i z_i}$ make the process unbiased: $E[w_i 1(z_i = j)] = p_{ij}$. The gradient of `log_q`
        is the one at fixed distances.

        **Returns:** `value` of shape `sample_shape + batch_shape + (n,)`, the same draws as `sample`, and `log_q` in
        nats, of the same shape with a last axis of `k`; `-inf` for datapoints that are left out.
        """
        match, distances = self._solved(match_and_distances, key, sample_shape)
        check_solved(match)
        capacity = jnp.asarray(self.capacity)
        return match.assignment, _conditionals(self.logits, capacity, self.present, distances, match.assignment)

    def sample_with_weights(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        r"""Draws and their importance weights $w_i = p_{i z_i} / q_{i z_i}$, both `sample_shape + batch_shape + (n,)`.

        $E[w_i 1(z_i = j)] = p_{ij}$ for every datapoint and every expert that some feasible assignment gives it.

        **Returns:** `value`, the same draws as `sample`, and `weight`, 0 for datapoints that are left out and NaN where
        there is no feasible assignment; no gradient flows through them.
        """
        value, log_q = self.sample_with_conditionals(key, sample_shape)
        return value, _weights(self.logits, log_q, value)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-probability in nats, `(...)`; `-inf` outside the support.

        The value of [`matching_log_prob`][gumbel_moe.distributions.matching_log_prob], always the same for the same
        arguments. `log_prob_with_error` says how far off it may be. For more than three experts it jumps by about that
        much at some logits: finite differences and line searches must allow for it, the gradient does not see it.
        """
        return self._estimate(value).value

    def log_prob_with_error(self, value: ArrayLike, *, key: Array | None = None) -> Estimate:
        """Log-probability and its standard error, in nats, both `(...)`; another `key` draws other price vectors."""
        if self._validate_args:
            self._validate_sample(value)
        return self._estimate(value, key)

    def entropy(self, key: Array | None = None, draws: int = 128) -> Array:
        """Estimate of the entropy in nats, of the batch shape: the value of `entropy_with_error`."""
        return self.entropy_with_error(key, draws).value

    def entropy_with_error(self, key: Array | None = None, draws: int = 128) -> Estimate:
        r"""$-E[\log P(z)]$ in nats, from `draws` assignments; and its standard error, both of the batch shape.

        By default the key is a fixed one.
        """
        draws = check_draws(draws, 2)  # one has no standard error
        value = self.sample(jax.random.key(0) if key is None else key, (draws,))
        log_prob, error = self._estimate(value)
        spread = jnp.var(log_prob, axis=0, ddof=1) / draws
        # One set of price vectors serves all draws: their errors need not average out.
        return Estimate(-jnp.mean(log_prob, axis=0), jnp.sqrt(spread + jnp.mean(error, axis=0) ** 2))

    def marginal_probs(self, key: Array, draws: int) -> Estimate:
        r"""$P(z_i = j)$ and its standard error, both `batch_shape + (n, k)`: the conditionals averaged over `draws`.

        $P(z_i = j) = E[q_{ij}]$, of smaller variance than counting where datapoint $i$ went (Rao-Blackwell).
        """
        draws = check_draws(draws, 2)

        def add(carry: tuple[Array, Array], step: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            mean, squares = carry
            count, key = step
            q = jnp.exp(self.sample_with_conditionals(key)[1])
            gap = q - mean
            mean = mean + gap / count
            return (mean, squares + gap * (q - mean)), None

        counts = jnp.arange(1, draws + 1, dtype=self.logits.dtype)
        start = jnp.zeros((*self._shape(()), self.num_experts), self.logits.dtype)
        start = vary_like((self.logits, self.capacity, self.present, key), (start, start))
        (mean, squares), _ = jax.lax.scan(add, start, (counts, jax.random.split(key, draws)))
        return Estimate(mean, jnp.sqrt(squares / (draws - 1) / draws))

    def _estimate(self, value: ArrayLike, key: Array | None = None) -> Estimate:
        def estimate(logits: Array, value: Array, *rest: Array) -> Estimate:
            *mask, capacity = rest
            return matching_log_prob(
                logits,
                value,
                capacity,
                mask=mask[0] if mask else None,
                num_draws=self.num_draws,
                target_error=self.target_error,
                key=key,
                method=self.method,
            )

        arrays = [self.logits, self._check_value(value), *([] if self.present is None else [self.present])]
        return with_capacity(estimate, self.capacity, (2, 1, 1)[: len(arrays)], *arrays)

    def _solved(self, solve: Callable[[Array, Array], Any], key: Array, sample_shape: tuple[int, ...]) -> Any:
        """What `solve` makes of perturbed scores and the capacities."""
        key, n = check_site_key(key), self.event_shape[0]
        check_room(self.capacity, n, self.present)
        shape = (*self._shape(sample_shape), self.num_experts)
        scores = _perturbed(key, self.logits, jnp.asarray(self.capacity), self.present, shape)
        capacity = self.capacity if self.present is None else capacity_with_absent(self.capacity, n)
        return with_capacity(solve, capacity, (2,), scores)


@partial(jax.jit, static_argnames="shape")
def _perturbed(key: Array, logits: Array, capacity: Array, present: Array | None, shape: tuple[int, ...]) -> Array:
    logits = jax.lax.stop_gradient(without_constants(logits, capacity, present))
    scores = logits + gumbel_noise(key, shape, logits.dtype)
    return scores if present is None else with_absent(scores, present)


@jax.jit
def _conditionals(logits: Array, capacity: Array, present: Array | None, distances: Array, value: Array) -> Array:
    k = logits.shape[-1]
    cost = over_leading_axes(lambda d, z: d.T[z], (2, 1), distances[..., :k, :k], value)
    log_q = jax.nn.log_softmax(without_constants(logits, capacity, present) - cost, axis=-1)
    return log_q if present is None else jnp.where(present[..., None], log_q, -jnp.inf)


@jax.jit
def _weights(logits: Array, log_q: Array, value: Array) -> Array:
    log_p = at_expert(jax.nn.log_softmax(logits, axis=-1), value)
    weight = jnp.where(value < 0, jnp.nan, jnp.exp(log_p - at_expert(log_q, value)))
    return jax.lax.stop_gradient(jnp.where(value < logits.shape[-1], weight, 0))
