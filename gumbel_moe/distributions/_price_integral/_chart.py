"""The map from coordinates to prices, and the integrand as a function of the coordinates."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gumbel_moe.distributions._price_integral._derivatives import Expansion, expand
from gumbel_moe.distributions._price_integral._problem import PriceProblem
from gumbel_moe.distributions._price_integral._truncated_normal import UNCUT, cut_normal, log_normal


class Coordinates(NamedTuple):
    """Prices are `centre + basis @ bent(mean + scale * cut_normal(x, bound))` for coordinates `x`."""

    centre: Array  # (k,)
    basis: Array  # (k, k)
    active: Array  # (k,) bool: the others are not integrated over
    gauge: Array  # (k,) b, 0 where no gauge is needed
    total: Array  # (k,) sum of b over the component
    counted: Array  # (k,) bool: one expert of every component that has a gauge
    rate: Array  # (k,) of the hyperbolic sine
    tilt: Array  # (k,) where on the hyperbolic sine the centre lies
    mean: Array  # (k,)
    scale: Array  # (k,)
    bound: Array  # (k,)
    log_tail_bound: Array  # (k,)
    log_gamma: Array  # () sum over the components of log Gamma(v)


class Curve(NamedTuple):
    """The map of every coordinate, with the logarithm of its slope and that one's two derivatives."""

    value: Array
    log_slope: Array
    log_slope_1: Array
    log_slope_2: Array


def plain(problem: PriceProblem) -> Coordinates:
    """Prices themselves as coordinates, from which the search for the mode starts."""
    zero, no = jnp.zeros_like(problem.load), jnp.zeros_like(problem.pinned)
    return Coordinates(
        centre=zero,
        basis=jnp.diag(zero + 1),
        active=~problem.pinned,
        gauge=zero,
        total=zero,
        counted=no,
        rate=zero + 1,
        tilt=zero,
        mean=zero,
        scale=zero + 1,
        bound=zero + UNCUT,
        log_tail_bound=zero,
        log_gamma=jnp.zeros_like(zero[0]),
    )


def plain_curve(problem: PriceProblem, x: Array) -> Curve:
    """That of the prices, but with the logarithm as coordinate of those that are at least 0."""
    bounded = problem.bounded.astype(x.dtype)
    return Curve(
        value=jnp.where(problem.pinned, 0, jnp.where(problem.bounded, jnp.exp(x), x)),
        log_slope=bounded * x,
        log_slope_1=bounded,
        log_slope_2=-problem.pinned.astype(x.dtype),
    )


def bent(c: Coordinates, x: Array) -> Curve:
    """At coordinates `x` `(..., k)`; inactive ones stay at 0 with a normal density."""
    w = cut_normal(x, c.bound, c.log_tail_bound)
    y = c.rate * (c.mean + c.scale * w) + c.tilt
    # From one exponential; the hyperbolic functions take several each.
    growth = jnp.expm1(jnp.abs(y))
    shrunk = growth / (1 + growth)
    sinh, cosh = 0.5 * jnp.sign(y) * (growth + shrunk), 1 + 0.5 * growth * shrunk
    tanh = sinh / cosh
    log_steep, cosh_tilt = 0.5 * (w - x) * (w + x) + c.log_tail_bound, jnp.cosh(c.tilt)
    w_1 = jnp.exp(log_steep)  # the slope of `w`
    drop = w * w_1 - x  # that of its logarithm
    drop_1 = w_1**2 + w * w_1 * drop - 1
    steep = c.rate * c.scale * w_1
    return Curve(
        value=jnp.where(c.active, (sinh - jnp.sinh(c.tilt)) / (c.rate * cosh_tilt), 0),
        log_slope=jnp.where(c.active, log_steep + jnp.log(c.scale * cosh / cosh_tilt), log_normal(x)),
        log_slope_1=jnp.where(c.active, drop + steep * tanh, -x),
        log_slope_2=jnp.where(c.active, drop_1 + steep * (drop * tanh + steep * (1 - tanh**2)), -1),
    )


def to_shift(c: Coordinates, x: Array) -> tuple[Array, Array]:
    """How far prices `(..., k)` are from the centre at coordinates `x`, and the log of the volume element."""
    curve = bent(c, x)
    return jnp.matmul(curve.value, c.basis.T, precision="highest"), jnp.sum(curve.log_slope, axis=-1)


def log_gauge(problem: PriceProblem, c: Coordinates, shift: Array) -> Array:
    """The logarithm of the gauge's density at shifts `(..., k)`."""
    return _gauge_and_shares(problem, c, shift)[0]


def _gauge_and_shares(problem: PriceProblem, c: Coordinates, shift: Array) -> tuple[Array, Array, Array]:
    """Its logarithm, every expert's part of `S`, and that part's share of the component's."""
    weight = c.gauge * jnp.exp(jnp.minimum(-shift, 80))  # beyond, the density is 0 by a wide margin
    load = jnp.matmul(weight, problem.linked, precision="highest")
    terms = c.total * jnp.log(jnp.where(c.counted, load, 1)) - load
    return jnp.sum(jnp.where(c.counted, terms, 0), axis=-1) - c.log_gamma, weight, weight / jnp.where(load > 0, load, 1)


def expand_in(problem: PriceProblem, c: Coordinates, curve: Curve) -> tuple[Expansion, Expansion]:
    """The logarithm of the integrand, gauge and volume element included, as a function of the coordinates.

    And `psi`, which is all that depends on the logits, as a function of the prices.
    """
    slope = jnp.where(c.active, jnp.exp(curve.log_slope), 0)
    shift = c.basis @ curve.value
    psi = expand(problem, c.centre + shift)
    gauge, weight, share = _gauge_and_shares(problem, c, shift)
    pull = c.total * share
    along = slope * (c.basis.T @ (psi.gradient - pull + weight))
    hessian = psi.hessian + jnp.diag(pull - weight) - problem.linked * pull[:, None] * share
    here = Expansion(
        value=psi.value + gauge + jnp.sum(curve.log_slope),
        gradient=along + curve.log_slope_1,
        hessian=slope[:, None] * slope * (c.basis.T @ hessian @ c.basis)
        + jnp.diag(curve.log_slope_1 * along + curve.log_slope_2),
    )
    return here, psi
