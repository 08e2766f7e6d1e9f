"""What the two assignment distributions share: logits `(..., n, k)`, capacities `(k,)`, and an event `(n,)`."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints

from gumbel_moe._checks import check_capacity, check_matrix
from gumbel_moe.distributions._constraints import capacities, logits_matrix
from gumbel_moe.distributions._discrete_samplers import refuse_discrete_samplers

# A decorator for `support`; NumPyro types its arguments by their default value.
assignment_support: Any = constraints.dependent_property(is_discrete=True, event_dim=1)  # pyright: ignore


class AssignmentDistribution(Distribution):
    """Base of the distributions over which expert handles which datapoint."""

    arg_constraints: ClassVar[dict[str, Any]] = {"logits": logits_matrix, "capacity": capacities}
    logits: Array
    capacity: Any

    def __init__(self, logits: ArrayLike, capacity: ArrayLike, *, validate_args: bool | None = None) -> None:
        self.logits = check_matrix("logits", logits)
        self.capacity = check_capacity(capacity, self.logits.shape[-1])
        *batch_shape, num_datapoints, _ = self.logits.shape
        super().__init__(tuple(batch_shape), (num_datapoints,), validate_args=validate_args)

    @property
    def num_experts(self) -> int:
        """The number `k` of experts."""
        return self.logits.shape[-1]

    @property
    def has_enumerate_support(self) -> bool:
        """False: an assignment has no support that could be listed entry by entry."""
        refuse_discrete_samplers(type(self).__name__)
        return False

    @classmethod
    def infer_shapes(cls, logits: tuple[int, ...], capacity: tuple[int, ...] = ()) -> tuple[tuple, tuple]:
        """Batch and event shape for the shapes of the arguments."""
        return tuple(logits[:-2]), (logits[-2],)

    def _shape(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*sample_shape, *self.batch_shape, *self.event_shape)


def pick(table: Array, expert: Array) -> Array:
    """`table[..., i, expert[..., i]]`, the leading axes broadcast; NaN-free and clipped for experts out of range."""
    shape = jnp.broadcast_shapes(table.shape[:-1], expert.shape)
    table = jnp.broadcast_to(table, (*shape, table.shape[-1]))
    index = jnp.broadcast_to(jnp.clip(expert, 0, table.shape[-1] - 1), shape)
    return jnp.take_along_axis(table, index[..., None], axis=-1)[..., 0]
