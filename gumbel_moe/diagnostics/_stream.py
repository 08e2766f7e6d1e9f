"""A stretch of draws of several chains, batch by batch: running moments, and the few numbers kept of every draw."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe.diagnostics._draws import PROJECTIONS, Batch, Batching, Frame, PerDraw, Places
from gumbel_moe.diagnostics._moments import Moments


class Stretch(NamedTuple):
    """What is left of a stretch of draws."""

    moments: Moments
    kept: np.ndarray
    """`(chains, draws, keep)`: the chosen coordinates."""
    projections: np.ndarray
    """`(chains, draws, PROJECTIONS)`: random ones, of the deviations."""
    along: np.ndarray
    """`(chains, draws)`: the projection on the direction asked for."""
    length: np.ndarray
    """`(chains, draws)`: of the deviation."""
    whole: np.ndarray
    """`(chains, draws)`: whether the draw is finite."""
    unit: Array
    """What the random projections divide by."""


def stretch(
    sample: Callable[..., Batch],
    batching: Batching,
    key: Array,
    chains: int,
    draws: range,
    centre: Array,
    keep: np.ndarray,
    unit: Array | None = None,
    direction: np.ndarray | None = None,
    products: bool = False,
    advance: Callable[[int], object] = lambda rows: None,
) -> Stretch:
    """The draws with the given numbers, of every chain; `advance` is told how many are done."""
    size, total = centre.shape[0], chains * len(draws)
    zeros = jnp.zeros_like(centre)
    frame = Frame(
        centre=centre,
        keep=jnp.asarray(keep, jnp.int32),
        signs=jnp.asarray(np.random.default_rng(0).integers(0, 2, (PROJECTIONS, size), np.int8) * 2 - 1),
        unit=zeros if unit is None else unit,
        direction=zeros if direction is None else jnp.asarray(direction, centre.dtype),
    )
    moments = Moments(size, products)
    # The dtype of a table is the device's own: float64 would double it for nothing.
    tables = PerDraw(
        kept=np.empty((total, len(keep)), centre.dtype),
        projections=np.empty((total, PROJECTIONS + 1), centre.dtype),
        length=np.empty(total, centre.dtype),
        whole=np.empty(total, bool),
    )
    for start in range(0, total, batching.rows):
        row = np.arange(start, start + batching.rows)
        valid, place = row < total, np.minimum(row, total - 1)
        chain, draw = np.divmod(place, len(draws))
        batch = sample(key, Places(np.int32(chain), np.int32(draws.start + draw), valid), frame)
        frame = frame._replace(unit=batch.unit)
        rows = slice(start, min(start + batching.rows, total))
        count = rows.stop - start
        for table, part in zip(tables, batch.per_draw, strict=True):
            table[rows] = np.asarray(part)[:count]
        moments.add(batch)
        advance(count)

    def by_chain(table: np.ndarray) -> np.ndarray:
        return table.reshape(chains, len(draws), *table.shape[1:])

    return Stretch(
        moments=moments,
        kept=by_chain(tables.kept),
        projections=by_chain(tables.projections[:, :PROJECTIONS]),
        along=by_chain(tables.projections[:, PROJECTIONS]),
        length=by_chain(tables.length),
        whole=by_chain(tables.whole),
        unit=frame.unit,
    )
