"""The draws of `check_unbiased` and all tests of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe.diagnostics._coordinate_tests import CoordinateTests, judge, rare, rounding
from gumbel_moe.diagnostics._draws import GradientEstimator, batching_of, sampler
from gumbel_moe.diagnostics._independence import Independence, look
from gumbel_moe.diagnostics._layout import Layout
from gumbel_moe.diagnostics._moments import Moments
from gumbel_moe.diagnostics._spread import Spread, learn, project
from gumbel_moe.diagnostics._stream import stretch


class Evidence(NamedTuple):
    """All that a report is made from."""

    layout: Layout
    exact: np.ndarray
    """`(size,)`."""
    moments: Moments
    whole: np.ndarray
    """`(chains, draws)`: whether the draw is finite."""
    coordinates: CoordinateTests
    spread: Spread
    independence: Independence
    keep: np.ndarray
    """Indices of the coordinates of which every draw is kept."""
    kept: np.ndarray
    """`(chains, draws, keep)`."""
    projections: np.ndarray
    """`(chains, draws, projections)`."""
    attrs: Mapping[str, Any]


def gather(
    estimates: tuple[GradientEstimator, ...],
    exact: np.ndarray,
    layout: Layout,
    key: Array,
    draws: int,
    chains: int,
    rate: float,
    keep: np.ndarray,
    attrs: Mapping[str, Any],
    advance: Callable[[int], object],
) -> Evidence:
    """Half of every chain's draws, and the direction that they suggest for the other half."""
    half = draws // 2
    batching = batching_of(layout, chains * (draws - half))
    sample = sampler(estimates, layout, batching.together)
    centre = jnp.asarray(exact, layout.dtype)
    first = stretch(sample, batching, key, chains, range(half), centre, keep, advance=advance)
    direction = learn(layout, exact, first.moments)
    second = stretch(
        sample, batching, key, chains, range(half, draws), centre, keep, first.unit, direction.vector, advance=advance
    )

    moments = first.moments.with_(second.moments)
    kept = np.concatenate([first.kept, second.kept], axis=1)
    projections = np.concatenate([first.projections, second.projections], axis=1)
    varies = np.sqrt(moments.variance) > rounding(layout, exact, moments)
    judged = np.concatenate([(varies & ~rare(moments))[keep], np.full(projections.shape[2], varies.any())])
    return Evidence(
        layout=layout,
        exact=exact,
        moments=moments,
        whole=np.concatenate([first.whole, second.whole], axis=1),
        coordinates=judge(layout, exact, np.asarray(centre, np.float64), moments, rate / 2),
        spread=project(direction, second.along, rate / 2),
        independence=look((kept, projections), judged),
        keep=keep,
        kept=kept,
        projections=projections,
        attrs=dict(attrs),
    )
