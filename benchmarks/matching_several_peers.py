"""The peers of the matching with several experts for a datapoint, each as a call that returns the best total score."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import ot
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

RELAXED = "POT"  # may give a datapoint to one expert several times
NAMES = RELAXED, "OR-tools", "SciPy"
_LINEAR_LIMIT = 300_000  # variables
_STEPS = 1e6  # OR-tools wants integer costs: this many steps per unit of score


def solvers(scores: np.ndarray, capacity: int, each: int) -> dict[str, Callable[[], float]]:
    """Those that can be expected to finish on `scores` `(n, k)` with equal capacities."""
    calls = {RELAXED: _transport(scores, capacity, each)}
    with suppress(ModuleNotFoundError):
        calls["OR-tools"] = _flow(import_module("ortools.graph.python.min_cost_flow"), scores, capacity, each)
    if scores.size <= _LINEAR_LIMIT:
        calls["SciPy"] = _linear(scores, capacity, each)
    return calls


def _transport(scores: np.ndarray, capacity: int, each: int) -> Callable[[], float]:
    n, k = scores.shape
    supply, demand, costs = np.full(n, float(each)), np.full(k, float(capacity)), -np.asarray(scores, np.float64)

    def emd() -> float:
        # The default limit stops the network simplex early, with a warning and no optimum.
        _, log = ot.emd(supply, demand, costs, numItermax=10**9, log=True)
        if log["warning"] is not None:
            raise RuntimeError(log["warning"])
        return -float(log["cost"])

    return emd


def _flow(min_cost_flow: Any, scores: np.ndarray, capacity: int, each: int) -> Callable[[], float]:
    n, k = scores.shape
    tails = np.repeat(np.arange(n, dtype=np.int32), k)
    heads = np.tile(np.arange(n, n + k, dtype=np.int32), n)
    costs = np.round(-np.asarray(scores, np.float64).ravel() * _STEPS).astype(np.int64)
    supplies = np.concatenate([np.full(n, each, np.int64), np.full(k, -capacity, np.int64)])

    def flow() -> float:
        network = min_cost_flow.SimpleMinCostFlow()
        network.add_arcs_with_capacity_and_unit_cost(tails, heads, np.ones(n * k, np.int64), costs)
        network.set_nodes_supplies(np.arange(n + k, dtype=np.int32), supplies)
        if network.solve() != network.OPTIMAL:
            raise RuntimeError("OR-tools found no optimum")
        return -network.optimal_cost() / _STEPS

    return flow


def _linear(scores: np.ndarray, capacity: int, each: int) -> Callable[[], float]:
    n, k = scores.shape
    pair = np.arange(n * k)
    rows = coo_matrix((np.ones(n * k), (pair // k, pair)))
    columns = coo_matrix((np.ones(n * k), (pair % k, pair)))
    costs = -np.asarray(scores, np.float64).ravel()

    def highs() -> float:
        places = np.full(k, float(capacity))
        found = linprog(costs, A_ub=columns, b_ub=places, A_eq=rows, b_eq=np.full(n, float(each)), bounds=(0, 1))
        if found.status != 0:
            raise RuntimeError(found.message)
        return -float(found.fun)

    return highs
