"""The skip process: draw experts independently, keep a uniformly random subset up to each expert's capacity."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.util import validate_sample

from gumbel_moe._arrays import as_array
from gumbel_moe._batch import over_leading_axes
from gumbel_moe._experts import at_expert, count, keep_first, surplus_weights
from gumbel_moe._logits import centred
from gumbel_moe.distributions._base import LogitsAssignment, assignment_support, check_site_key
from gumbel_moe.distributions._constraints import is_skipped, skipped_assignment


class SkipAssignment(LogitsAssignment):
    r"""Independent draws with a random surplus skipped.

    Every datapoint draws an expert, $z_i \sim \mathrm{Categorical}(p_i)$ with $p_i = \mathrm{softmax}(a_i)$. Of the
    $n_j$ datapoints that drew expert $j$, a uniformly random subset of size $\min(n_j, c_j)$ is kept, the others are
    skipped. The log-probability, in nats, of who drew what and who was kept is

    $$\log P = \sum_i \log p_{i z_i} - \sum_j \log \binom{n_j}{\min(n_j, c_j)} .$$

    A value is `(n,)` int32: `j` for a datapoint kept by expert `j`, `~j` (that is `-1 - j`) for one that drew `j` and
    was skipped, `k` for one that `mask` leaves out.

    **Arguments:**

    - `logits`: `(..., n, k)`, unnormalised log-probabilities $a$; leading axes are the batch shape. `-inf` forbids an
      expert for a datapoint.
    - `capacity`: an int or `(k,)` ints, at least 1: how many datapoints each expert may keep. Their sum may be below
      `n`. For a batch also `(..., k)`, whose leading axes broadcast against the batch shape; the attribute has as many
      axes as the batch and one.
    - `mask`: `(..., n)` bool, false for datapoints that take no part, such as padding: they take no place and count
      nowhere, and their logits may hold anything. By default all take part.
    - `experts_per_datapoint`: None, for one. The probability of several experts for each datapoint would be a sum over
      the orders in which each may have drawn them, and is not offered;
      [`SkipRouter`][gumbel_moe.routing.SkipRouter] draws them, with importance weights, which do not need it.

    **Raises:** `ValueError` for logits with fewer than two axes, NaN, `+inf` or a datapoint with every expert
    forbidden, for a capacity that is no positive integer, a mask of another shape or type, and for
    `experts_per_datapoint`; `TypeError` for logits
    that are not floating point. With `validate_args=False`, shapes and dtypes alone are looked at.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.distributions import SkipAssignment
    >>> d = SkipAssignment(jnp.zeros((6, 2)), capacity=2)
    >>> value = d.sample(jax.random.key(0))
    >>> int(d.kept(value).sum()) <= 4
    True
    >>> print(f"{d.log_prob(jnp.array([0, 0, ~0, 1, 1, ~1])):.4f}")  # -6 log 2 - 2 log 3
    -6.3561

    ```

    Reference: W. Kool, C. J. Maddison, A. Mnih, *Unbiased Gradient Estimation with Balanced Assignments for Mixtures of
    Experts*, arXiv 2109.11817 (2021).
    """

    why_one_expert = (
        "the probability of several experts per datapoint, a sum over the orders they came in, is not offered"
    )

    @assignment_support
    def support(self) -> Constraint:
        """Values in which every expert keeps exactly `min(drawn, capacity)`."""
        return skipped_assignment(self.capacity, self.present)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + batch_shape + (n,)`, int32."""
        key, shape = check_site_key(key), self._shape(sample_shape)
        return _draw(key, self.logits, jnp.asarray(self.capacity), self.present, shape)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-probability in nats, `(...)`; `-inf` outside the support."""
        value = self._check_value(value)
        possible = is_skipped(value, jnp.asarray(self.capacity), self.present)
        return jnp.where(possible, _log_prob(self.logits, value), -jnp.inf)

    def expert(self, value: ArrayLike) -> Array:
        """The expert that every datapoint drew, kept or skipped, `k` for one that is left out: `(..., n)`."""
        return _expert(as_array("value", value))

    def kept(self, value: ArrayLike) -> Array:
        """Whether every datapoint was kept: `(..., n)` bool."""
        array = as_array("value", value)
        return (array >= 0) & (array < self.num_experts)

    def importance_weights(self, value: ArrayLike) -> Array:
        r"""Weights $w_i = n_{z_i} / \min(n_{z_i}, c_{z_i})$ of the kept, 0 for all others: `(..., n)`.

        They make the process unbiased: $E[w_i 1(z_i = j)] = p_{ij}$ for every datapoint and expert.
        """
        weight = _weights(self.expert(value), jnp.asarray(self.capacity)).astype(self.logits.dtype)
        return jnp.where(self.kept(value), weight, 0)

    def sample_with_weights(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """Draws and their importance weights, both of shape `sample_shape + batch_shape + (n,)`.

        **Returns:** `value`, the same draws as `sample`, and `weight`, 0 where nobody handles the datapoint; no
        gradient flows through them.
        """
        value = self.sample(key, sample_shape)
        return value, self.importance_weights(value)


@partial(jax.jit, static_argnames="shape")
def _draw(key: Array, logits: Array, capacity: Array, present: Array | None, shape: tuple[int, ...]) -> Array:
    draw_key, order_key = jax.random.split(key)
    expert = jax.random.categorical(draw_key, centred(logits), axis=-1, shape=shape).astype(jnp.int32)
    if present is not None:
        expert = jnp.where(present, expert, logits.shape[-1])
    priority = jax.random.bits(order_key, shape)
    capacity = jnp.broadcast_to(capacity, (*shape[:-1], capacity.shape[-1]))
    kept = over_leading_axes(keep_first, (1, 1, 1), expert, priority, capacity)
    return jnp.where(kept | (expert == logits.shape[-1]), expert, ~expert)


def _expert(value: Array) -> Array:
    return jnp.where(value < 0, -1 - value, value)


_weights = jax.jit(surplus_weights)


@jax.jit
def _log_prob(logits: Array, value: Array) -> Array:
    """The log-probability of a value inside the support."""
    k = logits.shape[-1]
    expert = _expert(value)
    drawn, kept = count(expert, k), count(expert, k, value >= 0)
    own = at_expert(jax.nn.log_softmax(logits, axis=-1), expert)
    choice = jnp.sum(jnp.where(expert < k, own, 0), axis=-1)
    return choice - jnp.sum(_log_binomial(drawn, kept, value.shape[-1], logits.dtype), axis=-1)


def _log_binomial(total: Array, chosen: Array, largest: int, dtype: Any) -> Array:
    """`log binom(total, chosen)` as a sum of positive terms: log-gammas of large counts would cancel in float32."""
    rank = jnp.arange(1, largest + 1, dtype=dtype)
    left_out = (total - chosen).astype(dtype)[..., None]
    return jnp.sum(jnp.where(rank <= chosen[..., None].astype(dtype), jnp.log1p(left_out / rank), 0), axis=-1)
