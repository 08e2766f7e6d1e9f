"""What all routers with a capacity share: its check when the router is made, and its shape when it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced
from gumbel_moe._checks import check_capacity
from gumbel_moe.routing._several import SeveralExperts


@dataclass(frozen=True, repr=False)
class CapacitatedRouter(SeveralExperts):
    """Base of the routers whose experts have room for `capacity` datapoints each."""

    capacity: int | Sequence[int]

    @property
    def weighted(self) -> bool:
        """Whether the draws come with importance weights; those of most are not draws."""
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "capacity", _fixed(self.capacity))

    def _places(self, num_experts: int) -> tuple[int, ...]:
        """The `k` capacities; raises when there are not `num_experts` of them.

        Programs are compiled for them, as buffers are made for them: what is known to be full has a shorter search.
        """
        return tuple(np.asarray(check_capacity(np.asarray(self.capacity), num_experts)).tolist())

    def _fair_loads(self, num_datapoints: int, num_experts: int, present: Array | None = None, each: int = 1) -> Any:
        """`(k,)` the datapoints, or those `present`, divided among the experts in proportion to their capacities.

        Where every datapoint counts for `each` experts, an expert still has none of them twice.
        """
        places = np.asarray(self._places(num_experts), np.float64)
        if present is None:
            # Exact in double precision where it is a whole number, and only then rounded to the width in use.
            loads = np.minimum(num_datapoints * each * places / places.sum(), num_datapoints)
            return loads.astype(jnp.result_type(float))
        shares = np.gcd.reduce(places.astype(np.int64))
        small = (places / shares).astype(jnp.result_type(float))
        total = jnp.sum(present).astype(small.dtype)
        loads = total * each * small / small.sum()
        return loads if each == 1 else jnp.minimum(loads, total)


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
