"""The integral over one or two prices by the trapezoidal rule, on a box fitted to the integrand.

For an analytic integrand that vanishes at both ends the trapezoidal rule converges exponentially: rounding is what
is left. A price that is at least 0 is written as `log(1 + exp(x))`, so that its integrand vanishes at both ends too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._coordinates import triangular_basis
from gumbel_moe.distributions._price_integral._integrand import log_integrand_at
from gumbel_moe.distributions._price_integral._modes import starting_point
from gumbel_moe.distributions._price_integral._problem import PriceProblem

_COARSE = {1: 64, 2: 24}  # nodes per axis while the box is fitted
_FINE = {1: 256, 2: 96}
_FINE_IF_LARGE = {1: 128, 2: 40}  # with many datapoints the integrand is close to normal
_LARGE = 128
_DEPTH = {1: 40.0, 2: 27.0}  # nats below the maximum that are negligible, for as far as the float width goes
_MAX_ROUNDS = 30


class _Axes(NamedTuple):
    """How a point of the box becomes prices."""

    centre: Array  # (k,)
    basis: Array  # (k, k)
    expert: Array  # (axes,) the expert of each axis
    line: Array  # (axes,) bool: the price ranges over the line
    bounded: Array  # (axes,) bool: the price is at least 0; neither: pinned, and the axis is idle


def by_quadrature(problem: PriceProblem) -> tuple[Array, Array]:
    """`log P` and a bound on its error, in nats, for two or three experts."""
    fixed = jax.lax.stop_gradient(problem)
    number = problem.load.shape[0] - 1
    large = problem.rows.shape[0] * problem.rows.shape[1] > _LARGE
    axes, low, high = _first_box(fixed)
    low, high = _fit_box(fixed, axes, low, high)
    fine = (_FINE_IF_LARGE if large else _FINE)[number]
    points = _nodes(low, high, fine)
    values = _values(problem, axes, points, high - low)
    volume = jnp.sum(jnp.log((high - low) / fine))
    log_prob = jax.nn.logsumexp(values) + volume
    # The nodes whose indices have an even sum make a coarser rule of the same kind.
    parity = jnp.indices((fine,) * number, dtype=jnp.int32).sum(axis=0).reshape(-1) % 2
    half = jax.nn.logsumexp(jnp.where(parity == 0, values, -jnp.inf)) + jnp.log(2.0) + volume
    return log_prob, jax.lax.stop_gradient(jnp.abs(log_prob - half))


def _first_box(problem: PriceProblem) -> tuple[_Axes, Array, Array]:
    start = starting_point(problem)
    line = ~problem.pinned & ~problem.bounded
    basis = triangular_basis(start.curvature, line)
    # One pinned expert has no axis.
    expert = jnp.argsort(~problem.pinned, stable=True)[1:]
    axes = _Axes(start.prices, basis, expert, line[expert], problem.bounded[expert])
    along = jnp.sum(basis * (start.curvature @ basis), axis=0)[expert]
    reach = jnp.clip(8 / jnp.sqrt(jnp.maximum(along, 1e-3)), 1e-3, 40)
    inverse = start.prices[expert]
    inverse = inverse + jnp.log(-jnp.expm1(-jnp.where(axes.bounded, inverse, 1)))
    middle = jnp.where(axes.bounded, inverse, 0)
    reach = jnp.where(axes.bounded, jnp.maximum(reach, 8), reach)
    idle = ~axes.line & ~axes.bounded
    return axes, jnp.where(idle, 0, middle - reach), jnp.where(idle, 1, middle + reach)


def _nodes(low: Array, high: Array, number: int) -> Array:
    """Midpoints of a regular grid of the box: `(number ** axes, axes)`."""
    ticks = [lo + (jnp.arange(number) + 0.5) * ((hi - lo) / number) for lo, hi in zip(low, high, strict=True)]
    return jnp.stack([axis.reshape(-1) for axis in jnp.meshgrid(*ticks, indexing="ij")], axis=-1)


def _values(problem: PriceProblem, axes: _Axes, points: Array, width: Array) -> Array:
    """Logarithm of the integrand, volume element included, at points `(points, axes)`; in portions."""
    idle = ~axes.line & ~axes.bounded

    @jax.checkpoint
    def one(point: Array) -> Array:
        shift = jnp.zeros_like(axes.centre).at[axes.expert].set(jnp.where(axes.line, point, 0))
        prices = axes.centre + axes.basis @ shift
        bounded = jnp.where(axes.bounded, jax.nn.softplus(point), prices[axes.expert])
        prices = jax.lax.stop_gradient(prices.at[axes.expert].set(bounded))
        volume = jnp.where(axes.bounded, jax.nn.log_sigmoid(point), jnp.where(idle, -jnp.log(width), 0))
        return log_integrand_at(problem, prices) + jnp.sum(volume)

    return jax.lax.map(one, points, batch_size=64)


def _fit_box(problem: PriceProblem, axes: _Axes, low: Array, high: Array) -> tuple[Array, Array]:
    """Widen and narrow the box until it just holds what is not negligible."""
    number = low.shape[0]
    coarse = _COARSE[number]
    depth = jnp.minimum(_DEPTH[number], -1.2 * jnp.log(jnp.finfo(low.dtype).eps))
    idle = ~axes.line & ~axes.bounded

    def fit(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        low, high, _, rounds = carry
        values = _values(problem, axes, _nodes(low, high, coarse), high - low).reshape((coarse,) * number)
        kept = values > jnp.max(values) - depth
        kept = jnp.stack([jnp.any(kept, axis=tuple(a for a in range(number) if a != axis)) for axis in range(number)])
        first = jnp.argmax(kept, axis=1)
        last = coarse - 1 - jnp.argmax(kept[:, ::-1], axis=1)
        step = (high - low) / coarse
        new_low = jnp.where(first == 0, low - (high - low) / 2, low + (first - 1) * step)
        new_high = jnp.where(last == coarse - 1, high + (high - low) / 2, low + (last + 2) * step)
        fits = (first > 0) & (last < coarse - 1) & (last - first > 0.6 * coarse)
        done = jnp.all(fits | idle)
        return jnp.where(idle, low, new_low), jnp.where(idle, high, new_high), done, rounds + 1

    start = vary_like((problem, axes), (low, high, jnp.array(False), jnp.zeros((), jnp.int32)))
    low, high, _, _ = jax.lax.while_loop(lambda c: ~c[2] & (c[3] < _MAX_ROUNDS), fit, start)
    return low, high
