"""What a device computes against what is known: SciPy, this host's CPU, and the law of the weights.

Every check returns rows `{"check", "n", "k", numbers..., "passed"}`. Nothing is compared to the last bit: another
device sums in another order, so a draw may decide a near tie otherwise.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.log_prob import normal_logits, round_robin
from benchmarks.matching_problems import FAMILIES, family
from benchmarks.matching_scipy import scipy_total
from gumbel_moe.diagnostics import routing_report
from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, Routing, SkipRouter

TOTAL = 1e-6  # of the sum of the absolute scores: what float32 may lose of the best total
SUM = 1e-5  # the same, of a sum made in float32
GAP = 1e-5  # of the sum of the absolute scores
LOG = 1e-3  # nats: a product in TF32 is off by more
SAME = 0.99  # of the datapoints: they must have the same expert in the same draw on both devices
ERRORS = 5  # of the two estimates together; the keys are the same, so that they are as good as one
ROUNDING = 1e-5  # of a log-probability

Shape = tuple[int, int]
Row = dict[str, Any]
Check = Callable[[], list[Row]]


class Cases(NamedTuple):
    """Shapes of the checks."""

    scipy: tuple[Shape, ...]
    cpu: tuple[Shape, ...]
    draws: tuple[Shape, ...]
    log_prob: tuple[Shape, ...]
    weights: Shape
    weights_draws: int


def checks(cases: Cases, seed: int) -> Iterator[tuple[str, Check]]:
    """Names and calls, each of which compiles its own programs."""
    for shape in cases.scipy:
        yield f"optimum, SciPy {shape}", partial(optimum, *shape, seed, "SciPy")
    for shape in cases.cpu:
        yield f"optimum, CPU {shape}", partial(optimum, *shape, seed, "CPU")
    for shape in cases.draws:
        for what in _DRAWN:
            yield f"{what} of a draw {shape}", partial(draw, what, *shape, seed)
    for shape in cases.log_prob:
        yield f"log_prob {shape}", partial(log_prob, *shape, seed)
    for name, router in weighted_routers(*cases.weights).items():
        yield f"weights of {name}", partial(weights, name, router, *cases.weights, seed, cases.weights_draws)


def on_cpu(function: Callable[..., Any], *arguments: Array) -> Any:
    """What a function returns on this host's CPU."""
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        return function(*jax.device_put(arguments, cpu))


def optimum(n: int, k: int, seed: int, reference: str) -> list[Row]:
    """The best total of every family of scores, with its certificate."""
    capacity = n // k
    solve = jax.jit(lambda scores: solve_matching(scores, capacity))
    rows = []
    for name in FAMILIES:
        scores = family(name, n, k, seed)
        match = solve(jnp.asarray(scores))
        if reference == "SciPy":
            best = scipy_total(scores, capacity)
        else:
            best = total(scores, np.asarray(on_cpu(solve, jnp.asarray(scores)).assignment))
        assignment = np.asarray(match.assignment)
        feasible = fills(assignment, k, capacity)
        scale = max(float(np.abs(scores).max(axis=1).sum(dtype=np.float64)), 1.0)
        below = (best - total(scores, assignment)) / scale
        numbers = {
            "below_best": below,
            "value_off": (float(match.value) - best) / scale,
            "gap": float(match.gap) / scale,
        }
        passed = feasible and abs(below) <= TOTAL and abs(numbers["value_off"]) <= SUM and 0 <= numbers["gap"] <= GAP
        what = {"check": f"optimum against {reference}", "family": name, "n": n, "k": k, "feasible": feasible}
        rows.append({**what, **numbers, "passed": passed})
    return rows


def fills(assignment: np.ndarray, k: int, capacity: int) -> bool:
    """Whether everybody has an expert, and no expert more than its capacity."""
    inside = bool(((assignment >= 0) & (assignment < k)).all())
    return inside and int(np.bincount(assignment, minlength=k).max()) <= capacity


def total(scores: np.ndarray, assignment: np.ndarray) -> float:
    """Score of an assignment, summed in float64."""
    return float(scores[np.arange(len(scores)), assignment].sum(dtype=np.float64))


def draw(what: str, n: int, k: int, seed: int) -> list[Row]:
    """One draw by the same key here and on the CPU: experts, and the logarithms of what comes with them."""
    logits, key, capacity = normal_logits((n, k), 1.0, seed), jax.random.key(seed), n // k
    sample = jax.jit(partial(_DRAWN[what], capacity))
    (value, logs), (known, known_logs) = (
        [np.asarray(x) for x in drawn] for drawn in (sample(key, logits), on_cpu(sample, key, logits))
    )
    same = value == known  # a near tie that is decided otherwise moves few, and changes nothing for the others
    feasible, fraction = fills(value, k, capacity), float(same.mean())
    off = float(np.abs(logs - known_logs)[same].max(initial=0))
    numbers = {"feasible": feasible, "same_expert": fraction, "log_off": off}
    passed = feasible and fraction >= SAME and off <= LOG
    return [{"check": f"{what} of a draw against CPU", "n": n, "k": k, **numbers, "passed": passed}]


def _conditionals(capacity: int, key: Array, logits: Array) -> tuple[Array, Array]:
    return GumbelMatching(logits, capacity).sample_with_conditionals(key)


def _weights(capacity: int, key: Array, logits: Array) -> tuple[Array, Array]:
    routing = GumbelMatchingRouter(capacity)(key, logits)
    return routing.expert, jnp.log(routing.weight)


_DRAWN = {"conditionals": _conditionals, "weights": _weights}


def log_prob(n: int, k: int, seed: int) -> list[Row]:
    """The log-probability of one assignment, here and on the CPU, within the errors that the two report."""
    logits, capacity = normal_logits((n, k), 1.0, seed), n // k
    estimate = jax.jit(lambda a, z: GumbelMatching(a, capacity, validate_args=False).log_prob_with_error(z))
    here, known = estimate(logits, round_robin(n, k)), on_cpu(estimate, logits, round_robin(n, k))
    value, error, known_value, known_error = (float(x) for x in (*here, *known))
    allowed = ERRORS * float(np.hypot(error, known_error)) + ROUNDING * abs(known_value)
    numbers = {"value": value, "error": error, "cpu_value": known_value, "cpu_error": known_error}
    passed = abs(value - known_value) <= allowed
    return [{"check": "log_prob against CPU", "n": n, "k": k, **numbers, "allowed": allowed, "passed": passed}]


def weighted_routers(n: int, k: int) -> dict[str, Callable[..., Routing]]:
    """The routers whose weights make a draw unbiased; skipping has places for half of the datapoints."""
    capacity = n // k
    return {
        "independent": IndependentRouter(),
        "skip": SkipRouter(capacity // 2),
        "gumbel_matching": GumbelMatchingRouter(capacity),
    }


def weights(name: str, router: Callable[..., Routing], n: int, k: int, seed: int, draws: int) -> list[Row]:
    """Whether the mean of `w_i 1(z_i = j)` is `p_ij`, over many draws."""
    report = routing_report(router, normal_logits((n, k), 1.0, seed), jax.random.key(seed), draws)
    numbers = {"draws": draws, "max_z": report.max_z, "limit": report.limit}
    return [{"check": "weights", "router": name, "n": n, "k": k, **numbers, "passed": bool(report.unbiased)}]
