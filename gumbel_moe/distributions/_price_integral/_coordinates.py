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
from gumbel_moe.distributions._price_integral._derivatives import Expansion, expand, probabilities
from gumbel_moe.distributions._price_integral._newton import maximise
from gumbel_moe.distributions._price_integral._problem import BARRED, PriceProblem
from gumbel_moe.distributions._price_integral._truncated_normal import UNCUT, cut_normal, log_normal, log_tail

_DEEPEST_CUT = 6.0  # a bound this far up the tail stands for all farther ones: the rest is exponential
_LEAST_CURVATURE = 1e-3
_MILD = 12.0  # spread of log-probabilities at which the search for the mode starts
_COOLING = 3.0


class Coordinates(NamedTuple):
    """Prices are `centre + basis @ bent(mean + scale * cut_normal(x, bound))` for coordinates `x`."""

    centre: Array  # (k,)
    basis: Array  # (k, k)
    active: Array  # (k,) bool: the others are not integrated over
    gauge: Array  # (k,) b, 0 where no gauge is needed
    rate: Array  # (k,) of the hyperbolic sine
    tilt: Array  # (k,) where on the hyperbolic sine the centre lies
    mean: Array  # (k,)
    scale: Array  # (k,)
    bound: Array  # (k,)
    log_tail_bound: Array  # (k,)
    log_gamma: Array  # () sum over the components of log Gamma(v)


class _Start(NamedTuple):
    prices: Array
    gradient: Array  # of psi, not of what was maximised
    curvature: Array  # (k, k) minus the Hessian of psi
    probs: Array  # (datapoints, k)


def coordinates(problem: PriceProblem) -> Coordinates:
    """Two candidates, stacked: all prices free under a gauge, and one pinned with a triangular basis."""
    start = starting_point(problem)
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


def starting_point(problem: PriceProblem) -> _Start:
    """Typical prices: the mode, with the logarithm as coordinate of those that are at least 0.

    Sharp logits are cooled down to: the mode at a higher temperature is a start for the next lower one.
    """
    bounded, pinned = problem.bounded, problem.pinned

    def place(x: Array) -> Array:
        return jnp.where(pinned, 0, jnp.where(bounded, jnp.exp(x), x))

    def log_density(problem: PriceProblem, x: Array) -> Expansion:
        prices = place(x)
        psi = expand(problem, prices)
        slope = jnp.where(pinned, 0, jnp.where(bounded, prices, 1))
        extra = bounded.astype(x.dtype)
        bend = jnp.where(bounded, prices * psi.gradient, 0) - pinned.astype(x.dtype)
        return Expansion(
            psi.value + jnp.sum(extra * x),
            slope * psi.gradient + extra,
            slope[:, None] * slope * psi.hessian + jnp.diag(bend),
        )

    def cool(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, old, new = carry
        x = jnp.where(bounded, x + jnp.log(old / new), x * (old / new))
        warm = problem._replace(rows=problem.rows / new)
        x, _ = maximise(lambda x: log_density(warm, x), x)
        return x, new, jnp.maximum(new / _COOLING, 1)

    spread = jnp.max(jnp.where(problem.rows > BARRED / 2, -problem.rows, 0))
    hottest = jnp.maximum(spread / _MILD, 1)
    start = jnp.where(bounded, -jnp.log(jnp.maximum(problem.load, 1)), 0)
    carry = vary_like(problem, (start, jnp.full_like(hottest, 2) * hottest, hottest))
    x, _, _ = jax.lax.while_loop(lambda c: c[1] > 1, cool, carry)
    prices = place(x)
    psi = expand(problem, prices)
    probs, _ = probabilities(problem, prices)
    curvature = jnp.where(jnp.all(jnp.isfinite(psi.hessian)), -psi.hessian, jnp.eye(x.shape[0], dtype=x.dtype))
    return _Start(prices, jnp.nan_to_num(psi.gradient), curvature, probs.reshape(-1, x.shape[0]))


def _gauge(problem: PriceProblem, start: _Start) -> Array:
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

    def eliminate(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        rest, left = carry
        j = jnp.argmin(jnp.where(left, jnp.diag(rest), jnp.inf))
        left = left.at[j].set(False)
        column = jnp.where(left, rest[:, j] / jnp.maximum(rest[j, j], _LEAST_CURVATURE), 0)
        column = jnp.clip(column, -1, 1)  # as for the Laplacian of a graph
        return (rest - rest[j, j] * jnp.outer(column, column), left), (j, column)

    carry = vary_like((curvature, line), (start, jnp.ones(k, bool)))
    _, (order, columns) = jax.lax.scan(eliminate, carry, length=k)
    lower = jnp.eye(k, dtype=curvature.dtype).at[order].add(columns)
    return jnp.linalg.inv(lower)


def _fitted(
    problem: PriceProblem, start: _Start, basis: Array, active: Array, gauge: Array, curvature: Array
) -> Coordinates:
    """The one-dimensional maps, matched to the integrand along each vector of the basis."""
    spread, skew = _cumulants(start.probs, basis)
    total = problem.linked @ gauge
    share = gauge / jnp.where(total > 0, total, 1)
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
        rate=rate,
        tilt=tilt,
        mean=jnp.where(problem.bounded, mean, 0),
        scale=jnp.where(problem.bounded, scale, 1 / jnp.sqrt(along)),
        bound=bound,
        log_tail_bound=log_tail(bound),
        log_gamma=jnp.sum(jnp.where(_counted(problem, total), jax.lax.lgamma(jnp.where(total > 0, total, 1)), 0)),
    )


def _cumulants(probs: Array, basis: Array) -> tuple[Array, Array]:
    """Sums over the datapoints of the second and third cumulants of every basis vector under `probs`."""
    first, second, third = (jnp.matmul(probs, basis**power, precision="highest") for power in (1, 2, 3))
    return jnp.sum(second - first**2, axis=0), jnp.sum(third - 3 * second * first + 2 * first**3, axis=0)


def _cut(start: _Start, rate: Array, tilt: Array, bend: Array, along: Array) -> tuple[Array, Array, Array]:
    """Mean, scale and bound of the cut normal that matches slope and curvature at the centre."""
    curvature = jnp.maximum(along - bend * start.gradient, _LEAST_CURVATURE)
    floor = (jnp.arcsinh(jnp.sinh(tilt) - start.prices * rate * jnp.cosh(tilt)) - tilt) / rate
    steepness = curvature * floor - start.gradient  # of the density, downwards, at the bound
    curvature = jnp.maximum(curvature, (steepness / _DEEPEST_CUT) ** 2)
    scale = 1 / jnp.sqrt(curvature)
    bound = jnp.maximum(steepness * scale, UNCUT)
    return floor - bound * scale, scale, bound


class _Bent(NamedTuple):
    """The map of every coordinate, with the logarithm of its slope and that one's two derivatives."""

    value: Array
    log_slope: Array
    log_slope_1: Array
    log_slope_2: Array


def _bent(c: Coordinates, x: Array) -> _Bent:
    """At coordinates `x` `(..., k)`; inactive ones stay at 0 with a normal density."""
    log_tail_x = log_tail(x)
    w, log_tail_w = cut_normal(log_tail_x, x, c.bound, c.log_tail_bound)
    log_hazard_x, log_hazard_w = log_normal(x) - log_tail_x, log_normal(w) - log_tail_w
    y = c.rate * (c.mean + c.scale * w) + c.tilt
    value = (jnp.sinh(y) - jnp.sinh(c.tilt)) / (c.rate * jnp.cosh(c.tilt))
    log_slope = log_hazard_x - log_hazard_w + jnp.log(c.scale * jnp.cosh(y) / jnp.cosh(c.tilt))
    # The logarithm of the hazard `h` has the slope `h - x`, and that one the slope `h (h - x) - 1`.
    hazard_x, hazard_w = jnp.exp(log_hazard_x), jnp.exp(log_hazard_w)
    w_1 = jnp.exp(log_hazard_x - log_hazard_w)
    drop = (hazard_x - x) - (hazard_w - w) * w_1
    steep = c.rate * c.scale * w_1
    tanh = jnp.tanh(y)
    drop_1 = hazard_x * (hazard_x - x) - 1 - (hazard_w * (hazard_w - w) - 1) * w_1**2 - (hazard_w - w) * w_1 * drop
    return _Bent(
        value=jnp.where(c.active, value, 0),
        log_slope=jnp.where(c.active, log_slope, log_normal(x)),
        log_slope_1=jnp.where(c.active, drop + steep * tanh, -x),
        log_slope_2=jnp.where(c.active, drop_1 + steep * (drop * tanh + steep * (1 - tanh**2)), -1),
    )


def to_shift(c: Coordinates, x: Array) -> tuple[Array, Array]:
    """How far prices `(..., k)` are from the centre at coordinates `x`, and the log of the volume element."""
    bent = _bent(c, x)
    return jnp.matmul(bent.value, c.basis.T, precision="highest"), jnp.sum(bent.log_slope, axis=-1)


def log_gauge(problem: PriceProblem, c: Coordinates, shift: Array) -> Array:
    """The logarithm of the gauge's density at shifts `(..., k)`."""
    total = problem.linked @ c.gauge
    weight = c.gauge * jnp.exp(jnp.minimum(-shift, 80))  # beyond, the density is 0 by a wide margin
    load = jnp.matmul(weight, problem.linked, precision="highest")
    counted = _counted(problem, total)
    terms = total * jnp.log(jnp.where(counted, load, 1)) - load
    return jnp.sum(jnp.where(counted, terms, 0), axis=-1) - c.log_gamma


def _counted(problem: PriceProblem, total: Array) -> Array:
    """One expert of every component that has a gauge."""
    first = jnp.argmax(problem.linked, axis=1)
    return (total > 0) & (first == jnp.arange(total.shape[0], dtype=first.dtype))


def expand_in(problem: PriceProblem, c: Coordinates, x: Array) -> Expansion:
    """The logarithm of the integrand, gauge and volume element included, as a function of the coordinates."""
    bent = _bent(c, x)
    slope = jnp.where(c.active, jnp.exp(bent.log_slope), 0)
    shift = c.basis @ bent.value
    psi = expand(problem, c.centre + shift)
    weight = c.gauge * jnp.exp(-shift)
    total, load = problem.linked @ c.gauge, problem.linked @ weight
    share = weight / jnp.where(load > 0, load, 1)
    gradient = psi.gradient - total * share + weight
    hessian = psi.hessian + jnp.diag(total * share - weight) - problem.linked * (total * share)[:, None] * share
    along = slope * (c.basis.T @ gradient)
    return Expansion(
        value=psi.value + log_gauge(problem, c, shift) + jnp.sum(bent.log_slope),
        gradient=along + bent.log_slope_1,
        hessian=slope[:, None] * slope * (c.basis.T @ hessian @ c.basis)
        + jnp.diag(bent.log_slope_1 * along + bent.log_slope_2),
    )
