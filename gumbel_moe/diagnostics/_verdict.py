"""Why an estimator did not pass, in sentences."""

import math

import numpy as np

from gumbel_moe.diagnostics._evidence import Evidence
from gumbel_moe.diagnostics._layout import Layout


def why_not(evidence: Evidence) -> tuple[str, ...]:
    """Every reason; none if it passed."""
    return *_not_finite(evidence), *_biased(evidence), *evidence.independence.reasons


def _not_finite(evidence: Evidence) -> list[str]:
    layout, moments, whole = evidence.layout, evidence.moments, evidence.whole
    broken = moments.broken > 0
    if broken.any():
        return [f"{(~whole).sum():,} of {whole.size:,} draws are NaN or infinite, in {_names(layout, broken)}"]
    wild = ~np.isfinite(moments.variance)
    return [f"the variance is too large for {layout.dtype} in {_names(layout, wild)}"] if wild.any() else []


def _biased(evidence: Evidence) -> list[str]:
    layout, coordinates, spread = evidence.layout, evidence.coordinates, evidence.spread
    reasons = []
    size = np.abs(coordinates.z)
    found = size > coordinates.limit
    if found.any():
        at = int(np.argmax(np.where(found, size, 0)))
        bias, error = coordinates.bias[at], coordinates.error[at]
        number = f"bias in {found.sum():,} of {layout.size:,} coordinates"
        reasons.append(f"{number}, most clearly {layout.name(at)}: {bias:+.3g} with standard error {error:.2g}")
        if math.isinf(size[at]):
            reasons.append(f"all draws of {layout.name(at)} are the same: does the estimator use its key?")
    if spread.z > spread.limit:
        reasons.append(f"bias spread over the coordinates: t-score {spread.z:.1f}, limit {spread.limit:.1f}")
    return reasons


def _names(layout: Layout, where: np.ndarray) -> str:
    """The leaves that hold the coordinates."""
    return ", ".join(layout.leaves[leaf] for leaf in np.unique(layout.leaf_of[where]))
