r"""Coordinates in which the integrand over prices is close to a standard normal density.

Four changes, each of which removes one reason why it is not:

- *Gauge.* Without a free place the integrand does not change when all prices of a component rise together. Instead of
  pinning one expert, which couples all others through it, every price varies and the integrand is multiplied by
  `g(u) = S^v exp(-S) / Gamma(v)`, `S = sum_j b_j exp(-(u_j - c_j))`, `v = sum_j b_j`: its integral over the common
  shift is 1 for any positive `b`. With the right `b` the prices become almost independent; at equal logits, exactly.
- *Basis.* Sharp logits tie experts to each other along a tree. A triangular basis makes the Hessian diagonal.
- *Skewness.* A price falls off like the logarithm of a gamma variable, or of a ratio of two. A hyperbolic sine
  normalises it: third and fourth order at the mode agree, and the tails of the integrand become lighter than normal.
- *Half-lines.* A price that is at least 0 is made from a normal variable cut off from below.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._chart import Coordinates
from gumbel_moe.distributions._price_integral._derivatives import Expansion
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._truncated_normal import UNCUT, log_tail

_DEEPEST_CUT = 6.0  # a bound this far up the tail stands for all farther ones: the rest is exponential
_LEAST_CURVATURE = 1e-3


class Start(NamedTuple):
    """Typical prices, and what the integrand is like there."""

    prices: Array
    gradient: Array  # of psi, not of what was maximised
    curvature: Array  # (k, k) minus the Hessian of psi
    probs: Array  # (datapoints, k)


def start_at(prices: Array, psi: Expansion, probs: Array) -> Start:
    """With the derivatives that were found there, if they are finite."""
    k = prices.shape[0]
    curvature = jnp.where(jnp.all(jnp.isfinite(psi.hessian)), -psi.hessian, jnp.eye(k, dtype=prices.dtype))
    return Start(prices, jnp.nan_to_num(psi.gradient), curvature, probs.reshape(-1, k))


def coordinates(problem: PriceProblem, start: Start) -> Coordinates:
    """Two candidates, stacked: all prices free under a gauge, and one pinned with a triangular basis."""
    line = ~problem.pinned & ~problem.bounded
    gauged = line | (problem.pinned & (problem.linked @ line.astype(problem.linked.dtype) > 0))
    free_gauge = jnp.where(gauged, _gauge(problem, start), 0)
    eye = jnp.eye(line.shape[0], dtype=start.prices.dtype)
    candidates = (
        (eye, triangular_basis(start.curvature, line)),
        (gauged | problem.bounded, ~problem.pinned),
        (free_gauge, 0 * free_gauge),
        (start.curvature + _gauge_curvature(problem, free_gauge), start.curvature),
    )
    return jax.vmap(lambda *candidate: _fitted(problem, start, *candidate))(*map(jnp.stack, candidates))


def _gauge(problem: PriceProblem, start: Start) -> Array:
    """`b` with `b_j (v - b_j) / v` equal to the curvature of price `j`, so that couplings cancel on average."""
    wanted = jnp.maximum(jnp.diag(start.curvature), _LEAST_CURVATURE)

    def improve(_: int, b: Array) -> Array:
        return wanted / (1 - jnp.minimum(b / (problem.linked @ b), 0.5))

    return jax.lax.fori_loop(0, 10, improve, vary_like(problem, wanted))


def _gauge_curvature(problem: PriceProblem, gauge: Array) -> Array:
    total = problem.linked @ gauge
    return problem.linked * gauge[:, None] * gauge / jnp.where(total > 0, total, 1)


def triangular_basis(curvature: Array, line: Array) -> Array:
    """A unit triangular basis, up to a permutation, that makes the curvature diagonal; least coupled experts first."""
    k = line.shape[0]
    both = line[:, None] & line
    start = jnp.where(both, curvature, jnp.eye(k, dtype=curvature.dtype))

    def eliminate(_: int, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        rest, left, basis = carry
        j = jnp.argmin(jnp.where(left, jnp.diag(rest), jnp.inf))
        left = left & (jnp.arange(k) != j)
        column = jnp.where(left, rest[:, j] / jnp.maximum(rest[j, j], _LEAST_CURVATURE), 0)
        column = jnp.clip(column, -1, 1)  # as for the Laplacian of a graph
        return rest - rest[j, j] * jnp.outer(column, column), left, basis - jnp.outer(basis[:, j], column)

    carry = vary_like((curvature, line), (start, jnp.ones(k, bool), jnp.eye(k, dtype=curvature.dtype)))
    return jax.lax.fori_loop(0, k, eliminate, carry)[2]


def _fitted(
    problem: PriceProblem, start: Start, basis: Array, active: Array, gauge: Array, curvature: Array
) -> Coordinates:
    """The one-dimensional maps, matched to the integrand along each vector of the basis."""
    spread, skew = _cumulants(start.probs, basis)
    total = problem.linked @ gauge
    share = gauge / jnp.where(total > 0, total, 1)
    first = jnp.argmax(problem.linked, axis=1)
    counted = (total > 0) & (first == jnp.arange(total.shape[0], dtype=first.dtype))
    spread = spread + total * share**2
    skew = skew + total * (3 * share**2 - 2 * share**3)
    gamma = jnp.clip(skew / jnp.maximum(spread, _LEAST_CURVATURE), -1, 1)
    along = jnp.maximum(jnp.sum(basis * (curvature @ basis), axis=0), _LEAST_CURVATURE)
    rate = jnp.minimum(jnp.sqrt((gamma**2 + 3) / 24), jnp.sqrt(along))  # where it is flat, no exponential growth
    bend = jnp.clip(gamma / 3, -0.9 * rate, 0.9 * rate)  # second derivative of the map at the centre
    tilt = jnp.arctanh(bend / rate)
    mean, scale, bound = _cut(start, rate, tilt, bend, along)
    bound = jnp.where(problem.bounded, bound, UNCUT)
    return Coordinates(
        centre=start.prices,
        basis=basis,
        active=active,
        gauge=gauge,
        total=total,
        counted=counted,
        rate=rate,
        tilt=tilt,
        mean=jnp.where(problem.bounded, mean, 0),
        scale=jnp.where(problem.bounded, scale, 1 / jnp.sqrt(along)),
        bound=bound,
        log_tail_bound=log_tail(bound),
        log_gamma=jnp.sum(jnp.where(counted, jax.lax.lgamma(jnp.where(total > 0, total, 1)), 0)),
    )


def _cumulants(probs: Array, basis: Array) -> tuple[Array, Array]:
    """Sums over the datapoints of the second and third cumulants of every basis vector under `probs`."""
    first, second, third = (jnp.matmul(probs, basis**power, precision="highest") for power in (1, 2, 3))
    return jnp.sum(second - first**2, axis=0), jnp.sum(third - 3 * second * first + 2 * first**3, axis=0)


def _cut(start: Start, rate: Array, tilt: Array, bend: Array, along: Array) -> tuple[Array, Array, Array]:
    """Mean, scale and bound of the cut normal that matches slope and curvature at the centre."""
    curvature = jnp.maximum(along - bend * start.gradient, _LEAST_CURVATURE)
    floor = (jnp.arcsinh(jnp.sinh(tilt) - start.prices * rate * jnp.cosh(tilt)) - tilt) / rate
    steepness = curvature * floor - start.gradient  # of the density, downwards, at the bound
    curvature = jnp.maximum(curvature, (steepness / _DEEPEST_CUT) ** 2)
    scale = 1 / jnp.sqrt(curvature)
    bound = jnp.maximum(steepness * scale, UNCUT)
    return floor - bound * scale, scale, bound
