"""Capacities asked for on the command line, checked without JAX, which takes a while to import."""

from gumbel_moe.cli._exits import BadArgumentError

Capacity = int | tuple[int, ...]

NOBODY_SKIPPED = ("gumbel_matching", "base")
"""These need a place for every datapoint."""


def capacity_of(asked: Capacity | None, name: str, n: int, k: int) -> Capacity:
    """The capacity asked for, checked; without one, a fair share for everybody."""
    if asked is None:
        return -(-n // k)
    if isinstance(asked, tuple) and len(asked) != k:
        raise BadArgumentError("--capacity", f"must be one number or {k}, one for each expert, got {len(asked)}")
    places = sum(asked) if isinstance(asked, tuple) else asked * k
    if name in NOBODY_SKIPPED and places < n:
        room = f"has room for {places:,} datapoints (sum over {k} experts), but there are {n:,}; {name} skips nobody"
        raise BadArgumentError("--capacity", room)
    return asked
