"""What routers share that give a datapoint several experts: how many, and how they look as a value."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from jax import Array

from gumbel_moe._arrays import is_traced
from gumbel_moe._checks import check_pairs, check_positive_int, check_room
from gumbel_moe.routing._record import Routing


@dataclass(frozen=True, repr=False)
class SeveralExperts:
    """Base of the routers that give every datapoint as many experts as they are asked for."""

    experts_per_datapoint: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.experts_per_datapoint is not None:
            number = check_positive_int("experts_per_datapoint", self.experts_per_datapoint)
            object.__setattr__(self, "experts_per_datapoint", number)

    def __repr__(self) -> str:
        given = [(part.name, getattr(self, part.name)) for part in (*fields(self)[1:], fields(self)[0])]
        shown = ", ".join(f"{name}={value!r}" for name, value in given if value is not None)
        return f"{type(self).__name__}({shown})"

    def _number(self, num_experts: int) -> int:
        """How many of `num_experts` experts a datapoint has."""
        number = self.experts_per_datapoint or 1
        if number > num_experts:
            raise ValueError(
                f"experts_per_datapoint must be at most the number of experts, {num_experts}, got {number}"
            )
        return number

    def _as_asked(self, routing: Routing) -> Routing:
        """`routing`; one of one expert each gets an axis for it where the number was given as 1."""
        if self.experts_per_datapoint != 1:
            return routing
        single = ("expert", "kept", "weight", "log_prob", "gate")
        return routing._replace(**{name: getattr(routing, name)[:, None] for name in single})


def check_places_for_all(places: Sequence[int], num_datapoints: int, present: Array | None, number: int) -> None:
    """Raise when there is no place for all, or those `present`, at `number` experts each: where nobody is skipped."""
    capacity = np.asarray(places)
    if number == 1:
        check_room(capacity, num_datapoints, present)
    elif not is_traced(present):
        check_pairs(capacity, num_datapoints if present is None else int(np.sum(np.asarray(present))), number)
