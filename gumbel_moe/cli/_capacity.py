"""Capacities asked for on the command line, checked without JAX, which takes a while to import."""

from gumbel_moe.cli._exits import BadArgumentError

Capacity = int | tuple[int, ...]

NOBODY_SKIPPED = ("gumbel_matching", "base")
"""These need a place for every datapoint."""


def capacity_of(asked: Capacity | None, name: str, n: int, k: int, each: int = 1) -> Capacity:
    """The capacity asked for, checked; without one, a fair share for everybody, who has so many experts `each`."""
    if asked is None:
        return -(-n * each // k)
    if isinstance(asked, tuple) and len(asked) != k:
        raise BadArgumentError("--capacity", f"must be one number or {k}, one for each expert, got {len(asked)}")
    usable = [min(places, n) for places in asked] if isinstance(asked, tuple) else [min(asked, n)] * k
    if name in NOBODY_SKIPPED and sum(usable) < n * each:
        places = sum(usable)  # an expert has each datapoint once at most
        wanted = f"there are {n:,}" if each == 1 else f"there are {n:,}, of {each} different experts each"
        room = f"has room for {places:,} datapoints (sum over {k} experts), but {wanted}; {name} skips nobody"
        raise BadArgumentError("--capacity", room)
    return asked
