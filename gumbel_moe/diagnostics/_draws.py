"""Draws of an estimator in batches of one size, compiled once: what leaves the device does not grow with the draws."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.diagnostics._columns import first_look, mean_and_squares
from gumbel_moe.diagnostics._layout import Layout, check_same, layout_of

_BATCH_BYTES = 2**26  # of the draws of one batch, and
_TOGETHER_BYTES = 2**24  # of those made at once: what an estimator needs besides its result is several times that
_MOST = 512  # draws in a batch
_TOGETHER_CPU, _TOGETHER = 32, 256  # draws at once: more does not make a CPU faster, and needs its memory
PROJECTIONS = 4  # random ones

GradientEstimator = Callable[[Array], Any]


class Places(NamedTuple):
    """Which draws a batch holds, `(rows,)` each."""

    chain: Any
    draw: Any
    """Its number in the chain."""
    valid: Any
    """False for those that only fill up the batch."""


class Frame(NamedTuple):
    """What draws are measured against."""

    centre: Array
    """`(size,)`: deviations are from here."""
    keep: Array
    """`(keep,)`: indices of the coordinates of which every draw is kept."""
    signs: Array
    """`(PROJECTIONS, size)`: of the random projections."""
    unit: Array
    """`(size,)`: what they divide by; the first batch sets it where it is 0 throughout."""
    direction: Array
    """`(size,)`: one more projection."""


class PerDraw(NamedTuple):
    """What is kept of every draw, `(rows, ...)`."""

    kept: Any
    """`(rows, keep)`: the chosen coordinates."""
    projections: Any
    """`(rows, PROJECTIONS + 1)`: of the deviation; the last one is along the direction asked for."""
    length: Any
    """`(rows,)`: of the deviation, as a vector."""
    whole: Any
    """`(rows,)`: whether all coordinates are finite."""


class Batch(NamedTuple):
    """What is kept of a batch of draws: one entry per coordinate, but for `per_draw`."""

    count: Array
    """`()`: draws in it."""
    scale: Array
    """Largest absolute deviation; the two moments are of deviations over it, so that no square overflows."""
    mean: Array
    squares: Array
    """Sum of squared differences from the mean."""
    magnitude: Array
    """Mean absolute value of the draws."""
    peak: Array
    """Largest absolute value."""
    nonzero: Array
    """How many draws were not 0."""
    broken: Array
    """How many draws were NaN or infinite."""
    unit: Array
    """What the random projections divide by."""
    per_draw: PerDraw
    products: Array
    """`(size, size)` sum of products of differences from the mean, over the scales, if asked for; else empty."""


class Batching(NamedTuple):
    """How many draws go together."""

    rows: int
    """In a batch."""
    together: int
    """Made at once; divides `rows`."""


def batching_of(layout: Layout, draws: int, most: int = _MOST) -> Batching:
    """Batches for `draws` draws, of nearly equal size."""
    draw_bytes = layout.size * jnp.dtype(layout.dtype).itemsize
    most = max(1, min(most, _BATCH_BYTES // draw_bytes))
    batches = -(-draws // most)
    rows = -(-draws // batches)
    at_once = _TOGETHER_CPU if jax.default_backend() == "cpu" else _TOGETHER
    together = max(1, min(rows, at_once, _TOGETHER_BYTES // draw_bytes))
    return Batching(-(-rows // together) * together, together)


def layout_of_draws(estimates: tuple[GradientEstimator, ...], key: Array) -> Layout:
    """The layout of what the estimators return for a key; raises unless they agree."""
    layouts = []
    for place, estimate in enumerate(estimates):
        what = "estimate" if len(estimates) == 1 else f"estimate[{place}]"
        if not callable(estimate):
            raise TypeError(f"{what} must be a function of a key, got {type(estimate).__name__}")
        layouts.append(layout_of(f"what {what} returns", jax.eval_shape(estimate, key)))
    for layout in layouts[1:]:
        check_same("what estimate[1] returns", layout, "what estimate[0] returns", layouts[0])
    return layouts[0]


def sampler(
    estimates: tuple[GradientEstimator, ...], layout: Layout, together: int, products: bool = False
) -> Callable:
    """The compiled function that makes a batch.

    A function that is compiled by `jax.jit` already must be pure, and is compiled here once for all calls. Any other
    may read variables that have changed since, so it is compiled anew.
    """
    if all(isinstance(estimate, jax.stages.Wrapped) for estimate in estimates):
        return _remembered(estimates, layout, together, products)
    return _compiled(estimates, layout, together, products)


def _compiled(estimates: tuple[GradientEstimator, ...], layout: Layout, together: int, products: bool) -> Callable:
    return jax.jit(partial(_batch, estimates, layout, together, products))


_remembered = lru_cache(maxsize=16)(_compiled)


def _one(
    estimates: tuple[GradientEstimator, ...], layout: Layout, key: Array, chain: Array, draw: Array
) -> tuple[Array, ...]:
    """One draw; or the difference of two independent ones, with its size before the subtraction."""
    key = jax.random.fold_in(jax.random.fold_in(key, chain), draw)
    if len(estimates) == 1:
        return (layout.vector(estimates[0](key)),)
    keys = jax.random.split(key, len(estimates))
    first, second = (layout.vector(estimate(k)) for estimate, k in zip(estimates, keys, strict=True))
    return first - second, jnp.abs(first) + jnp.abs(second)


def _batch(
    estimates: tuple[GradientEstimator, ...],
    layout: Layout,
    together: int,
    products: bool,
    key: Array,
    places: Places,
    frame: Frame,
) -> Batch:
    """The draws at `places`."""
    one = jax.vmap(partial(_one, estimates, layout, key))
    made = jax.lax.map(lambda at: one(*at), (places.chain.reshape(-1, together), places.draw.reshape(-1, together)))
    values, *sizes = (part.reshape(-1, layout.size) for part in made)
    sizes = sizes[0] if sizes else jnp.abs(values)
    valid = places.valid
    real = valid[:, None]
    deviation = jnp.where(real, values - frame.centre, 0)
    first = first_look(values, sizes, deviation, valid)
    scale = jnp.where(first.largest == 0, 1, first.largest)
    count = jnp.sum(valid).astype(values.dtype)
    mean, squares = mean_and_squares(deviation, scale, valid)
    longest = jnp.max(scale)
    # The standard deviation, coordinate by coordinate.
    unit = jnp.where(jnp.any(frame.unit > 0), frame.unit, scale * jnp.sqrt(squares / count))
    weights = jnp.concatenate([jnp.where(unit > 0, frame.signs.astype(unit.dtype) / unit, 0), frame.direction[None]])
    return Batch(
        count=count,
        scale=scale,
        mean=mean,
        squares=squares,
        magnitude=first.magnitude / count,
        peak=first.peak,
        nonzero=first.nonzero,
        broken=first.broken,
        unit=unit,
        per_draw=PerDraw(
            kept=values[:, frame.keep],
            projections=jnp.matmul(deviation, weights.T, precision="highest"),
            length=longest * jnp.sqrt(jnp.sum((deviation / longest) ** 2, axis=1)),
            whole=jnp.all(jnp.isfinite(values) & jnp.isfinite(sizes), axis=1),
        ),
        products=_products(jnp.where(real, deviation / scale - mean, 0)) if products else jnp.zeros((0, 0)),
    )


def _products(centred: Array) -> Array:
    return jnp.matmul(centred.T, centred, precision="highest")
