"""The Gumbel-Matching process: perturb the logits with Gumbel noise, then solve the balanced matching exactly."""

import jax
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions.constraints import Constraint

from gumbel_moe._batch import over_leading_axes
from gumbel_moe._checks import check_room
from gumbel_moe.distributions._base import AssignmentDistribution, assignment_support
from gumbel_moe.distributions._constraints import balanced_assignment
from gumbel_moe.matching import exchange_distances, solve_matching


class GumbelMatching(AssignmentDistribution):
    r"""The best capacitated assignment of randomly perturbed logits.

    With i.i.d. standard Gumbel noise $G$ and $s = a + G$,

    $$z = \arg\max_z \sum_i s_{i z_i} \quad \text{subject to} \quad \#\{i : z_i = j\} \le c_j .$$

    It is *not* the Gibbs distribution $P(z) \propto \exp \sum_i a_{i z_i}$ over the feasible assignments.

    A value is `(n,)` int32, the expert of every datapoint. Without a feasible matching (`-inf` logits, or traced
    capacities that are too small), `sample` raises where it can see it; under `jit` it gives -1 throughout, and
    conditionals that are NaN.

    **Arguments:**

    - `logits`: `(..., n, k)`, unnormalised log-probabilities $a$; leading axes are the batch shape. `-inf` forbids an
      expert for a datapoint.
    - `capacity`: an int or `(k,)` ints, at least 1, with `sum(capacity) >= n`.

    **Raises:** `ValueError` for logits with fewer than two axes, NaN, `+inf` or a datapoint with every expert
    forbidden, for a capacity that is no positive integer, and for capacities that cannot hold `n` datapoints;
    `TypeError` for logits that are not floating point.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.distributions import GumbelMatching
    >>> d = GumbelMatching(jnp.zeros((6, 2)), capacity=3)
    >>> value, log_q = d.sample_with_conditionals(jax.random.key(0))
    >>> int(value.sum()), log_q.shape
    (3, (6, 2))

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, *Unbiased Gradient Estimation with Balanced Assignments for Mixtures of
    Experts*, arXiv 2109.11817 (2021); for permutations, G. Mena et al., *Learning Latent Permutations with
    Gumbel-Sinkhorn Networks*, arXiv 1802.08665 (2018).
    """

    def __init__(self, logits: ArrayLike, capacity: ArrayLike, *, validate_args: bool | None = None) -> None:
        super().__init__(logits, capacity, validate_args=validate_args)
        check_room(self.capacity, self.event_shape[0])

    @assignment_support
    def support(self) -> Constraint:
        """Assignments in which no expert holds more than its capacity."""
        return balanced_assignment(self.capacity)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + batch_shape + (n,)`, int32."""
        return solve_matching(self._perturbed(key, sample_shape), self.capacity).assignment

    def sample_with_conditionals(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        r"""Draws, and each datapoint's distribution given the noise of all the others.

        $$q_{ij} = P(z_i = j \mid G_{i'}, i' \ne i) = \mathrm{softmax}_j (a_{ij} - D_{j z_i})$$

        with $D$ the [exchange distances][gumbel_moe.matching.exchange_distances] of the perturbed scores. The weights
        $w_i = p_{i z_i} / q_{i z_i}$ make the process unbiased: $E[w_i 1(z_i = j)] = p_{ij}$. The gradient of `log_q`
        is the one at fixed distances.

        **Returns:** `value` of shape `sample_shape + batch_shape + (n,)`, the same draws as `sample`, and `log_q` in
        nats, of the same shape with a last axis of `k`.
        """
        scores = self._perturbed(key, sample_shape)
        value = solve_matching(scores, self.capacity).assignment
        distances = exchange_distances(scores, value, self.capacity)
        return value, _conditionals(self.logits, jax.lax.stop_gradient(distances), value)

    def log_prob(self, value: ArrayLike) -> Array:
        """Not available yet: raises `NotImplementedError`."""
        raise NotImplementedError(
            "GumbelMatching.log_prob is missing in this version: the probability of a matching is an integral over the "
            "experts' prices that is not computed yet (the normalised exp(sum of logits) is another distribution)"
        )

    def _perturbed(self, key: Array, sample_shape: tuple[int, ...]) -> Array:
        shape = (*self._shape(sample_shape), self.num_experts)
        return jax.lax.stop_gradient(self.logits) + jax.random.gumbel(key, shape, self.logits.dtype)


@jax.jit
def _conditionals(logits: Array, distances: Array, value: Array) -> Array:
    cost = over_leading_axes(lambda d, z: d.T[z], (2, 1), distances, value)
    return jax.nn.log_softmax(logits - cost, axis=-1)
