"""Routers of two experts for every datapoint, and a loop that fills buffers with them."""

import itertools

import numpy as np
import pytest

from gumbel_moe.routing import ROUTERS, make_router
from tests.routing import routers

N, K, M = 8, 4, 2
# The matchings have places to spare, the others drop some pairs of a datapoint and an expert.
PLACES = {"gumbel_matching": 5, "base": 5}
ALL = {
    name: make_router(name, PLACES.get(name, 3), experts_per_datapoint=M)
    for name, entry in ROUTERS.items()
    if entry.one_expert and entry.kind != "uncorrected"
}
# What all share is tried on one that draws and one that chooses; on the others by the slow tests.
SOME = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("gumbel_matching", "switch") else pytest.mark.slow) for name in ALL],
)
WEIGHTED = {name: router for name, router in ALL.items() if ROUTERS[name].kind == "weighted"}
CHOOSING = {name: router for name, router in ALL.items() if ROUTERS[name].kind == "biased"}


def logits(**options):
    return routers.logits(N, K, **options)


def one_and_none_left():
    """Logits with which datapoint 0 may have one expert only, datapoint 1 just two, and 2 not the first."""
    forbidden = np.zeros((N, K), bool)
    forbidden[0, 1:] = forbidden[1, 2:] = forbidden[2, 0] = True
    return np.where(forbidden, -np.inf, np.asarray(logits())).astype(logits().dtype)


def pairs(routing):
    """`(datapoint, place, expert)` of all that are kept, in the order of the batch."""
    expert, kept = np.asarray(routing.expert), np.asarray(routing.kept)
    return [(i, r, int(expert[i, r])) for i in range(len(expert)) for r in range(expert.shape[1]) if kept[i, r]]


def probability_of_set(p, experts):
    """That draws from `p` without replacement give these experts, in any order."""
    total = 0.0
    for order in itertools.permutations(experts):
        product, left = 1.0, 1.0
        for expert in order:
            product, left = product * p[expert] / left, left - p[expert]
        total += product
    return total


def first_come(experts, places):
    """Which pairs stay when every expert takes datapoints in the order of the batch."""
    room = list(np.broadcast_to(places, K))
    kept = np.zeros(experts.shape, bool)
    for place, j in np.ndenumerate(experts):
        kept[place], room[j] = room[j] > 0, room[j] - 1
    return kept
