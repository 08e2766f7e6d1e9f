"""The uniform assignment: every datapoint gets a place, drawn without replacement from all places."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.util import validate_sample

from gumbel_moe._arrays import is_traced
from gumbel_moe._checks import check_capacity, check_mask, check_number, check_places, check_room
from gumbel_moe.distributions._base import AssignmentDistribution, assignment_support, check_site_key
from gumbel_moe.distributions._constraints import balanced_assignment, capacities, is_balanced
from gumbel_moe.distributions._places import MOST_PLACES, draw_experts, uniform_entropy, uniform_log_prob


class UniformAssignment(AssignmentDistribution):
    r"""Places drawn uniformly without replacement, whoever the datapoints are.

    Expert $j$ has $c_j$ places, $S = \sum_j c_j$ in all. Every datapoint gets one of them, by an injective map from the
    datapoints to the places that is drawn uniformly from all such maps, and $z_i$ is the expert of $i$'s place. With
    $n_j$ datapoints at expert $j$, the log-probability, in nats, is

    $$\log P = \sum_j \log \frac{c_j!}{(c_j - n_j)!} - \log \frac{S!}{(S - n)!} .$$

    If the places just suffice, $S = n$, all ways to divide the datapoints into groups of sizes $c_j$ are equally
    probable, $P = \prod_j c_j! / n!$. That is the [`GumbelMatching`][gumbel_moe.distributions.GumbelMatching] of equal
    logits, or of logits that are the sum of a term of the datapoint and one of the expert, without a quadrature. With
    free places it is *not*: where every expert has room for all, Gumbel-Matching of equal logits draws experts
    independently with probability $1/k$, while here $P(z_i = j) = c_j / S$, and datapoints avoid each other's places.

    A value is `(n,)` int32, the expert of every datapoint, `k` for one that `mask` leaves out. Where traced capacities
    have too few places, `sample` gives -1 throughout, `log_prob` is `-inf`, and entropy and marginals are NaN.

    **Arguments:**

    - `num_datapoints`: `n`, an int.
    - `capacity`: `(..., k)` ints, at least 1, with `sum(capacity) >= n`, or at least the number of datapoints that
      `mask` leaves in, and no more than `2**30` places in all. Leading axes are the batch shape, together with those of
      `mask`; the attribute has as many axes as the batch and one. For `k` equal capacities give `(capacity,) * k`: an
      int does not say how many experts there are.
    - `mask`: `(..., n)` bool, false for datapoints that take no part, such as padding: they take no place and count
      nowhere. By default all take part.

    **Raises:** `ValueError` for a `num_datapoints` that is no int or negative, for a capacity that is no positive
    integer or a single one, for capacities that cannot hold the datapoints or have too many places, for a mask of
    another shape or type, and for leading axes that do not broadcast. With `validate_args=False`, shapes and dtypes
    alone are looked at here, and values by `sample` and `log_prob`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.distributions import UniformAssignment
    >>> d = UniformAssignment(6, capacity=(3, 3))
    >>> value = d.sample(jax.random.key(0))
    >>> int(value.sum())
    3
    >>> print(f"{jnp.exp(d.log_prob(value)):.4f} {jnp.exp(-d.entropy()):.4f}")  # one of 20, all equally probable
    0.0500 0.0500
    >>> roomy = UniformAssignment(2, capacity=(3, 1))
    >>> print(f"{jnp.exp(roomy.log_prob(jnp.array([0, 0]))):.4f}")  # 3/4 times 2/3
    0.5000

    ```
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "num_datapoints": constraints.nonnegative_integer,
        "capacity": capacities,
    }
    pytree_data_fields = ()

    def __init__(
        self,
        num_datapoints: int,
        capacity: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        validate_args: bool | None = None,
    ) -> None:
        n = check_number("num_datapoints", num_datapoints)
        places = check_capacity(capacity, None, look=False)
        batch_shape = _batch_shape(places.shape[:-1], () if mask is None else np.shape(mask)[:-1])
        super().__init__(n, places, check_mask(mask, (*batch_shape, n)), batch_shape, validate_args)

    def validate_args(self, strict: bool = True) -> None:
        """Raise for capacities that are not allowed, the constructor's check unless `validate_args=False`.

        With `strict`, arguments that are traced and so cannot be looked at raise as well.
        """
        check_places(self.capacity)
        self._check_places()
        if strict and is_traced(self.capacity):  # else nothing is left to see, and within a mesh NumPyro fails at it
            super().validate_args(strict)

    @assignment_support
    def support(self) -> Constraint:
        """Assignments in which no expert holds more than its capacity."""
        return balanced_assignment(self.capacity, self.present)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of shape `sample_shape + batch_shape + (n,)`, int32."""
        key = check_site_key(key)
        self._check_places()
        return draw_experts(key, jnp.asarray(self.capacity), self.present, self._shape(sample_shape))

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Array:
        """Log-probability in nats, `(...)`; `-inf` outside the support.

        It is a sum of `n` terms of one sign: nothing cancels, whatever the numbers of datapoints and places.
        """
        value, capacity = self._check_value(value), jnp.asarray(self.capacity)
        possible = is_balanced(value, capacity, self.present)
        return jnp.where(possible, uniform_log_prob(capacity, value), -jnp.inf)

    def entropy(self) -> Array:
        r"""The entropy in nats, of the batch shape.

        If the places just suffice it is $-\log P$. Otherwise the number $n_j$ at an expert is hypergeometric, and

        $$H = \log \frac{S!}{(S - n)!} - \sum_j E \log \frac{c_j!}{(c_j - n_j)!}$$

        needs no other distribution. It is summed exactly, but for rounding: of some 1e-7 nats per datapoint in float32.
        """
        entropy = uniform_entropy(jnp.asarray(self.capacity), self._wanted(), self.num_datapoints)
        return jnp.broadcast_to(entropy, self._shape(())[:-1])

    def marginal_probs(self) -> Array:
        r"""$P(z_i = j) = c_j / S$, of shape `batch_shape + (n, k)`; 0 for datapoints that are left out."""
        places = jnp.asarray(self.capacity).astype(jnp.result_type(float))
        total = jnp.sum(places, axis=-1, keepdims=True)
        share = jnp.where(total >= self._wanted().astype(total.dtype)[..., None], places / total, jnp.nan)[..., None, :]
        probs = jnp.broadcast_to(share, (*self._shape(()), self.num_experts))
        return probs if self.present is None else jnp.where(self.present[..., None], probs, 0)

    def _wanted(self) -> Array:
        """How many datapoints take part, of the batch shape or a number."""
        if self.present is None:
            return jnp.asarray(self.num_datapoints, jnp.int32)
        return jnp.sum(self.present, axis=-1, dtype=jnp.int32)

    def _check_places(self) -> None:
        """Raise for too few places and for too many, where they can be seen."""
        check_room(self.capacity, self.num_datapoints, self.present)
        if not is_traced(self.capacity):
            most = np.max(np.sum(np.asarray(self.capacity), axis=-1, dtype=np.int64), initial=0)
            if most > MOST_PLACES:
                raise ValueError(f"capacity must have at most 2**30 places in all, got {most}")


def _batch_shape(of_capacity: tuple[int, ...], of_mask: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(of_capacity, of_mask)
    except ValueError:
        raise ValueError(
            f"the leading axes of capacity and mask must broadcast, got {of_capacity} and {of_mask}"
        ) from None
