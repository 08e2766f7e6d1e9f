"""The peers: other libraries' solvers, each as a call that returns the total score of the best assignment.

What a peer needs only once for a problem (another number type, expanded columns, integer costs) is left out of the
time. OR-tools and lapx are left out where they are not installed.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ot

from benchmarks.matching_scipy import best_total, expanded

EXPANDED_LIMIT = 1024  # datapoints: the peers for square problems hold n x n scores
FLOW_LIMIT = 1_200_000  # arcs
_INTEGER_STEPS = 1e6  # OR-tools wants integer costs: this many steps per unit of score


def versions() -> dict[str, str | None]:
    """Of the packages that are timed; None where there is none."""

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: installed(name) for name in ("POT", "scipy", "ortools", "lapx", "optax")}


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


def solvers(scores: np.ndarray, capacity: int) -> dict[str, Callable[[], float]]:
    """The peers that can be expected to finish on `scores` `(n, k)` with equal capacities."""
    n, k = scores.shape
    calls: dict[str, Callable[[], float]] = {"POT": _pot(scores, capacity)}
    if n <= EXPANDED_LIMIT:
        columns = expanded(scores, capacity)
        calls["SciPy"] = lambda: best_total(columns)
        calls["optax"] = _optax(scores, capacity)
        lap = _optional("lap")
        if lap is not None:
            costs = -columns
            calls["lapx"] = lambda: float(-lap.lapjv(costs, return_cost=True)[0])
    min_cost_flow = _optional("ortools.graph.python.min_cost_flow")
    if n * k <= FLOW_LIMIT and min_cost_flow is not None:
        calls["OR-tools"] = _flow(min_cost_flow, scores, capacity)
    return calls


def pot_total(scores: np.ndarray, capacity: int) -> float:
    """The best total by POT, everything included."""
    return _pot(scores, capacity)()


def _pot(scores: np.ndarray, capacity: int) -> Callable[[], float]:
    n, k = scores.shape
    supply, demand, costs = np.ones(n), np.full(k, float(capacity)), -np.asarray(scores, np.float64)

    def emd() -> float:
        # The default limit stops the network simplex early, with a warning and no optimum.
        _, log = ot.emd(supply, demand, costs, numItermax=10**9, log=True)
        if log["warning"] is not None:
            raise RuntimeError(log["warning"])
        return -float(log["cost"])

    return emd


def _optax(scores: np.ndarray, capacity: int) -> Callable[[], float]:
    costs = jnp.asarray(-np.repeat(scores, capacity, axis=1))
    solve = jax.jit(optax.assignment.hungarian_algorithm)

    def hungarian() -> float:
        row, column = solve(costs)
        return -float(costs[row, column].sum())

    return hungarian


def _flow(min_cost_flow: Any, scores: np.ndarray, capacity: int) -> Callable[[], float]:
    n, k = scores.shape
    tails = np.repeat(np.arange(n, dtype=np.int32), k)
    heads = np.tile(np.arange(n, n + k, dtype=np.int32), n)
    costs = np.round(-np.asarray(scores, np.float64).ravel() * _INTEGER_STEPS).astype(np.int64)
    supplies = np.concatenate([np.ones(n, np.int64), np.full(k, -capacity, np.int64)])

    def flow() -> float:
        network = min_cost_flow.SimpleMinCostFlow()
        network.add_arcs_with_capacity_and_unit_cost(tails, heads, np.ones(n * k, np.int64), costs)
        network.set_nodes_supplies(np.arange(n + k, dtype=np.int32), supplies)
        if network.solve() != network.OPTIMAL:
            raise RuntimeError("OR-tools found no optimum")
        return -network.optimal_cost() / _INTEGER_STEPS

    return flow
