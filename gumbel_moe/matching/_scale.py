"""Scores on a scale of their own: those far below a datapoint's best one must not cost the others their precision.

Such scores, finite masks (-1e9, -1e30, the least float), are brought near. The search tells at once whether it needs
one of them; most often none, and then the optimum is that of the scores as they were.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._rows import difference, sampled

_TYPICAL = 2.0**10  # typical distances to the best score at which scores count as far
_FURTHER = 2.0**10  # by what the scale grows where far scores are needed
_HIDDEN = 8  # units in the last place
_UNIT = 2.0**-30  # of scores near the largest float: prices may be as many times larger as there are experts


class Scale(NamedTuple):
    """How distances to the best score of a datapoint, in multiples of 1 / `unit`, are brought near; each `()`.

    Up to `limit` they stay. Beyond, they are counted from `start + rest` on, put at `offset`, and cut off at `reach`;
    `rest` is what rounding took from the distance `start`.
    """

    limit: Array
    start: Array
    rest: Array
    offset: Array
    reach: Array
    unit: Array

    @property
    def end(self) -> Array:
        """The largest distance there is on this scale; what is farther off is cut off to it."""
        return self.offset + self.reach


def first_scale(scores: Array, top: Array) -> Scale:
    """Far is what lies many typical distances below the best score of a datapoint, `top` `(n,)`."""
    tops = sampled(top)
    typical = _typical(tops[:, None] - sampled(scores))
    # Where rounding the distances hides how the best scores differ, they are all masks.
    between = _typical(jnp.abs(tops - jnp.roll(tops, 1)))
    typical = jnp.where(between < _HIDDEN * float(jnp.finfo(scores.dtype).eps) * typical, between, typical)
    most = float(jnp.finfo(scores.dtype).max) * _UNIT
    limit = jnp.where(typical < most / _TYPICAL, _TYPICAL * typical, most)
    nothing = jnp.zeros_like(limit)
    return Scale(limit, nothing, nothing, limit, nothing, jnp.ones_like(limit))


def _typical(distances: Array) -> Array:
    """A mean of the positive ones that large values move little: masks may be most of them. NaN if there are none."""
    root = jnp.where((distances > 0) & (distances < jnp.inf), jax.lax.rsqrt(distances), 0)
    return (jnp.sum(root > 0, dtype=jnp.int32).astype(root.dtype) / jnp.sum(root)) ** 2


def brought_near(scores: Array, top: Array, scale: Scale) -> Array:
    """Minus the distances to the best scores, brought near; `-inf` stays."""

    def cut_off(_: None) -> Array:
        return jnp.maximum(scores * scale.unit - top[:, None] * scale.unit, -scale.limit)

    def told_apart(_: None) -> Array:
        distance, rest = _distances(scores, top, scale)
        beyond = jnp.clip(_beyond(distance, rest, scale), 0, scale.reach)
        return -jnp.where(distance <= scale.limit, distance, scale.offset + beyond)

    near = jax.lax.cond(scale.reach > 0, told_apart, cut_off, None)
    return jnp.where(scores > -jnp.inf, near, -jnp.inf)


def is_beyond(scores: Array, top: Array, scale: Scale) -> Array:
    """Which pairs `(n, k)` are farther off than the limit."""
    return _distances(scores, top, scale)[0] > scale.limit


def removed(scale: Scale) -> Array:
    """By how much the pairs beyond the limit were brought near, besides what was cut off."""
    return jnp.where(scale.reach > 0, scale.start - scale.offset, 0)


def next_scale(scores: Array, top: Array, scale: Scale) -> tuple[Scale, Array]:
    """A scale that tells more of the far scores apart, and whether there are any that the old one cuts off.

    Where nothing lies for long beyond the limit, what follows is a level of its own: it is put so far below the rest
    that all the rest of a cycle of exchanges cannot outweigh one of it, and no farther. Else the limit grows.
    """
    k = scores.shape[1]
    finite = scores > -jnp.inf
    widest = jnp.max(jnp.where(finite, top[:, None] - scores, 0))
    most = float(jnp.finfo(scores.dtype).max) * _UNIT
    unit = jnp.where(widest > most, _UNIT, 1).astype(scores.dtype)
    limit = scale.limit * unit / scale.unit
    distance, rest = _distances(scores, top, scale._replace(unit=unit))
    farther = finite & (distance > limit)
    nearest = jnp.min(jnp.where(farther, distance, jnp.inf))

    near = jnp.max(jnp.where(distance <= limit, distance, 0))
    near = jnp.where(near > 0, near, limit / _TYPICAL)
    level = nearest > 4 * k * near
    own_limit = jnp.maximum(_FURTHER * limit, 2 * nearest)
    nothing = jnp.zeros_like(limit)
    grown = Scale(own_limit, nothing, nothing, own_limit, nothing, unit)
    least = jnp.min(jnp.where(distance == nearest, rest, jnp.inf))
    apart = Scale(limit, nearest, least, (1 + 2 * k) * near, _FURTHER * near, unit)
    first = jax.tree.map(lambda a, b: jnp.where(level, a, b), apart, grown)

    told = scale.reach > 0
    beyond = _beyond(distance, rest, scale)
    cut_off = finite & (beyond > scale.reach)
    nearest_cut_off = jnp.min(jnp.where(cut_off, beyond, jnp.inf))
    wider = scale._replace(reach=jnp.maximum(_FURTHER * scale.reach, 2 * nearest_cut_off))
    following = jax.tree.map(lambda a, b: jnp.where(told, a, b), wider, first)
    return following, jnp.any(jnp.where(told, cut_off, farther))


def _beyond(distance: Array, rest: Array, scale: Scale) -> Array:
    return (distance - scale.start) + (rest - scale.rest)


def _distances(scores: Array, top: Array, scale: Scale) -> tuple[Array, Array]:
    """Distances to the best scores, and what rounding took from them: a mask's hides the size of the best score."""
    return difference(top[:, None] * scale.unit, scores * scale.unit)
