"""What the assignment distributions share: capacities `(..., k)`, an event `(n,)`, and two of them logits."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from gumbel_moe._arrays import as_array, is_traced
from gumbel_moe._checks import check_capacity, check_entries, check_logits, check_places
from gumbel_moe._keys import check_key
from gumbel_moe.distributions._constraints import capacities, logits_matrix

# A decorator for `support`; NumPyro types its arguments by their default value.
assignment_support: Any = constraints.dependent_property(is_discrete=True, event_dim=1)  # pyright: ignore


class AssignmentDistribution(Distribution):
    """Base of the distributions over which expert handles which datapoint.

    Samplers of single discrete entries, of continuous sites alone, and automatic guides find no support to list here,
    and refuse in NumPyro's own words; `gumbel_moe.mcmc.swap_and_move` is for them.
    """

    pytree_data_fields = ("capacity", "present")
    capacity: Any
    present: Array | None  # the argument `mask`, a name that NumPyro has for a method

    def __init__(
        self,
        num_datapoints: int,
        capacity: Array | np.ndarray,
        present: Array | None,
        batch_shape: tuple[int, ...],
        validate_args: bool | None,
    ) -> None:
        # As many axes as the batch, so that they still match when `vmap` or `scan` puts others in front.
        self.capacity = capacity.reshape((1,) * (len(batch_shape) + 1 - capacity.ndim) + capacity.shape)
        self.present = present
        super().__init__(batch_shape, (num_datapoints,), validate_args=validate_args)

    @property
    def num_datapoints(self) -> int:
        """The number `n` of datapoints, those that are left out among them."""
        return self.event_shape[0]

    @property
    def num_experts(self) -> int:
        """The number `k` of experts."""
        return self.capacity.shape[-1]

    def enumerate_support(self, expand: bool = True) -> Array:
        """Not available: the support is exponential in the number of datapoints."""
        raise NotImplementedError(
            f"{type(self).__name__} does not enumerate its support, which is exponential in the number of datapoints; "
            "gumbel_moe.distributions.enumerate_assignments lists the assignments of a tiny problem"
        )

    def _shape(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of draws: also one for each problem of a distribution that was stacked and still has its old batch shape."""
        return (*sample_shape, *np.broadcast_shapes(self.batch_shape, *self._stacked()), *self.event_shape)

    def _stacked(self) -> list[tuple[int, ...]]:
        """The leading axes of the arrays, which are those of the batch unless `vmap` or `scan` has stacked them."""
        return [array.shape[:-1] for array in (self.capacity, self.present) if array is not None]

    def _check_value(self, value: ArrayLike) -> Array:
        """`value` as integers, one for every datapoint: a single one must not broadcast. Nothing has number `~k`."""
        array = as_array("value", value)
        if array.shape[-1:] != self.event_shape:
            raise ValueError(f"value must have shape (..., {self.event_shape[0]}), got shape {array.shape}")
        if jnp.issubdtype(array.dtype, jnp.integer):
            return array
        return jnp.where(array == jnp.floor(array), array, ~self.num_experts).astype(jnp.int32)


class LogitsAssignment(AssignmentDistribution):
    """Base of those whose parameters are logits `(..., n, k)`."""

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": logits_matrix, "capacity": capacities}
    pytree_data_fields = ("logits",)
    logits: Array
    why_one_expert: ClassVar[str]
    """Why there is no such distribution for several experts per datapoint."""

    def __init__(
        self,
        logits: ArrayLike,
        capacity: ArrayLike,
        *,
        mask: ArrayLike | None = None,
        experts_per_datapoint: None = None,
        validate_args: bool | None = None,
    ) -> None:
        if experts_per_datapoint is not None:
            raise ValueError(
                f"experts_per_datapoint must be None for {type(self).__name__}, got {experts_per_datapoint!r}: "
                f"{self.why_one_expert}; the routers of gumbel_moe.routing draw several, with importance weights"
            )
        self.logits, present = check_logits(logits, mask, look=False)
        *leading, num_datapoints, k = self.logits.shape
        batch_shape = tuple(leading)
        places = check_capacity(capacity, k, look=False, batch_shape=batch_shape)
        super().__init__(num_datapoints, places, present, batch_shape, validate_args)

    def validate_args(self, strict: bool = True) -> None:
        """Raise for logits and capacities that are not allowed, the constructor's check unless `validate_args=False`.

        With `strict`, arguments that are traced and so cannot be looked at raise as well.
        """
        check_entries("logits", self.logits)  # the same as `arg_constraints`, but it says what is wrong
        check_places(self.capacity)
        if is_traced(self.logits, self.capacity):
            super().validate_args(strict)

    @classmethod
    def infer_shapes(cls, logits: tuple[int, ...], capacity: tuple[int, ...] = ()) -> tuple[tuple, tuple]:
        """Batch and event shape for the shapes of the arguments."""
        return tuple(logits[:-2]), (logits[-2],)

    def _stacked(self) -> list[tuple[int, ...]]:
        return [self.logits.shape[:-2], *super()._stacked()]


def check_site_key(key: Array | None) -> Array:
    """`key` if it is a single JAX key; `None` is what a sample site without a seed passes on."""
    return check_key(key, hint="; models need handlers.seed")
