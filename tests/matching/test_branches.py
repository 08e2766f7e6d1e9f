"""Every way through the search of a large problem is taken by some problem here, and gives POT's optimum."""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

from gumbel_moe.matching import _search
from gumbel_moe.matching._solve import solve_one
from tests.matching import large_problems
from tests.matching.large_problems import FAMILIES, check

ALL = list(
    itertools.product([(512, 5, "even"), (512, 5, "loose"), (1024, 8, "even")], [*FAMILIES, "mixed", "half"], range(12))
)


class Watch:
    """Tells what happened in a solve: of `lax.cond`, only the branch that is taken calls back."""

    def __init__(self, patch):
        self.seen = {"match_core": [], "_finished": [], "tested": []}
        # A function of its own, as jit remembers what it traced: with the callbacks here, without them elsewhere.
        self.solve = jax.jit(lambda *problem, full: solve_one(*problem, full=full), static_argnames="full")
        looks = [lambda out: out[2], lambda _: True, lambda out: out[1]]
        for name, look in zip(self.seen, looks, strict=True):
            patch.setattr(_search, name, self.watched(name, getattr(_search, name), look))

    def watched(self, name, function, look):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            out = function(*args, **kwargs)
            jax.debug.callback(lambda value: self.seen[name].append(value.item()), look(out))
            return out

        return wrapper

    def __call__(self, s, capacity):
        for events in self.seen.values():
            events.clear()
        match = self.solve(s, jnp.asarray(capacity, jnp.int32), full=int(capacity.sum()) == len(s))
        jax.block_until_ready(match)
        jax.effects_barrier()
        tried = self.seen["match_core"]
        return match, tuple(tried), bool(self.seen["_finished"]), tuple(self.seen["tested"])


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


@pytest.mark.slow
def test_every_way_is_taken_and_leads_to_the_optimum(watch):
    cores, ties = set(), set()
    for (n, k, kind), family, seed in ALL:
        s = large_problems.scores(family, n, k, seed)
        capacity = large_problems.capacities(kind, n, k)
        match, fits, everybody, attempts = watch(s, capacity)
        check(s, capacity, match, 1e-6)
        assert fits == (True,) or everybody  # an assignment of the core that has no room is never accepted
        assert everybody or not attempts
        cores.add(
            "accepted" if not everybody else {(): "not tried", (True,): "rejected", (False,): "without room"}[fits]
        )
        ties.add(attempts)
    assert cores == {"accepted", "rejected", "without room", "not tried"}
    assert ties == {(), (True,), (False,)}  # no ties; what noise led to was optimal, or not


@pytest.mark.slow
def test_the_typical_way(watch):
    capacity = large_problems.capacities("even", 1024, 8)
    for family, seed in itertools.product([*FAMILIES[:3], "ties"], range(12)):
        _, _, everybody, attempts = watch(large_problems.scores(family, 1024, 8, seed), capacity)
        assert (everybody, attempts) == ((True, (True,)) if family == "ties" else (False, ()))
