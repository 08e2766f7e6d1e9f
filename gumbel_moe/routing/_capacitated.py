"""What all routers with a capacity share: its check when the router is made, and its shape when it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced
from gumbel_moe._checks import check_capacity


@dataclass(frozen=True)
class CapacitatedRouter:
    """Base of the routers whose experts have room for `capacity` datapoints each."""

    capacity: int | Sequence[int]

    @property
    def weighted(self) -> bool:
        """Whether the draws come with importance weights; those of most are not draws."""
        return False

    def __post_init__(self) -> None:
        object.__setattr__(self, "capacity", _fixed(self.capacity))

    def _places(self, num_experts: int) -> tuple[int, ...]:
        """The `k` capacities; raises when there are not `num_experts` of them.

        Programs are compiled for them, as buffers are made for them: what is known to be full has a shorter search.
        """
        return tuple(np.asarray(check_capacity(np.asarray(self.capacity), num_experts)).tolist())

    def _fair_loads(self, num_datapoints: int, num_experts: int, present: Array | None = None) -> Any:
        """`(k,)` the datapoints, or those `present`, divided among the experts in proportion to their capacities."""
        places = np.asarray(self._places(num_experts), np.float64)
        if present is None:
            # Exact in double precision where it is a whole number, and only then rounded to the width in use.
            return (num_datapoints * places / places.sum()).astype(jnp.result_type(float))
        shares = np.gcd.reduce(places.astype(np.int64))
        small = (places / shares).astype(jnp.result_type(float))
        return jnp.sum(present).astype(small.dtype) * small / small.sum()


def _fixed(capacity: int | Sequence[int] | np.ndarray) -> int | tuple[int, ...]:
    """`capacity` as a positive int or a tuple of them, so that routers can be compared and hashed."""
    allowed = "capacity must be an int or (k,) ints"
    if is_traced(capacity):
        raise TypeError(f"{allowed} known when the router is made, got a traced array")
    places = np.asarray(capacity)
    if places.ndim > 1 or places.size == 0:
        raise ValueError(f"{allowed}, got shape {places.shape}")
    if not np.issubdtype(places.dtype, np.integer):
        raise ValueError(f"{allowed}, got {capacity!r}")
    if places.min() < 1:
        raise ValueError(f"capacity must be at least 1 for every expert, got {capacity!r}")
    return tuple(int(c) for c in places) if places.ndim else int(places)
