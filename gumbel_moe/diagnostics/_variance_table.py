"""Rows and columns of the table of variances, with intervals from resampled blocks of draws."""

import numpy as np
import pandas as pd

from gumbel_moe.diagnostics._coordinate_tests import judge
from gumbel_moe.diagnostics._layout import Layout
from gumbel_moe.diagnostics._moments import Moments
from gumbel_moe.diagnostics._spectrum import Spectrum, of_covariance, of_draws
from gumbel_moe.diagnostics._stream import Stretch
from gumbel_moe.diagnostics._timing import Timed

INTERVAL = 0.95
_BLOCKS, _RESAMPLES = 200, 2000


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """`(resamples,)` means of `values`, whose blocks are drawn with replacement."""
    blocks = np.array_split(values, min(_BLOCKS, len(values)))
    sums, counts = np.array([block.sum() for block in blocks]), np.array([len(block) for block in blocks])
    chosen = np.random.default_rng(seed).integers(0, len(blocks), (_RESAMPLES, len(blocks)))
    return sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)


def interval(values: np.ndarray, share: float) -> tuple[float, float]:
    """The middle `share` of them."""
    if not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def spectrum_of(seen: Stretch, timed: Timed) -> Spectrum:
    """From the sums of products where they were kept, else from the few draws that were timed."""
    moments = seen.moments
    if moments.products is None:
        return of_draws(timed.draws)
    return of_covariance(moments.products / (moments.count - 1), moments.count)


def row(
    seen: Stretch, centre: np.ndarray, timed: Timed, squared: np.ndarray, trace: float, spectrum: Spectrum
) -> dict[str, float]:
    """What is known of one estimator alone; the moments are about `centre`."""
    count = seen.moments.count
    total = float(squared.sum())
    signal = float(np.sum((centre + seen.moments.mean) ** 2)) - trace / count  # the mean's own noise taken out
    return {
        "trace": trace,
        "signal_to_noise": signal / trace if trace else np.inf,
        "seconds": float(np.median(timed.seconds)),
        "rank": spectrum.rank,
        "top_share": float(spectrum.eigenvalues[0] / spectrum.eigenvalues.sum()) if trace else np.nan,
        "largest_draw": float(squared.max() / total) if total else np.nan,
        "not_finite": int((~seen.whole).sum()),
    }


def bias_row(
    layout: Layout, exact: np.ndarray, centre: np.ndarray, moments: Moments, rate: float
) -> dict[str, float | bool]:
    """The mean against the exact gradient, coordinate by coordinate and as a whole; the moments are about `centre`."""
    tests = judge(layout, exact, centre, moments, rate)
    trace = float(np.sum(moments.variance))
    squared = max(0.0, float(np.sum(tests.bias**2)) - trace / moments.count)
    largest = float(np.max(np.abs(tests.z)))
    biased = not largest <= tests.limit  # also where it is NaN
    return {"bias": float(np.sqrt(squared)), "mse": trace + squared, "max_z": largest, "biased": biased}


def relate(
    table: pd.DataFrame, resampled: dict[str, np.ndarray], evaluations: dict[str, float] | None, reference: str
) -> pd.DataFrame:
    """The columns that need several others, in their order."""
    low_high = {name: interval(values, INTERVAL) for name, values in resampled.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {
            name: (1.0, 1.0) if name == reference else interval(resampled[reference] / values, INTERVAL)
            for name, values in resampled.items()
        }
        table = table.assign(
            trace_low=[low for low, _ in low_high.values()],
            trace_high=[high for _, high in low_high.values()],
            relative=table.trace[reference] / table.trace,
            relative_low=[low for low, _ in ratios.values()],
            relative_high=[high for _, high in ratios.values()],
        )
        if evaluations is not None:
            table["evaluations"] = list(evaluations.values())
        for unit in ("seconds", "evaluations") if evaluations is not None else ("seconds",):
            product = table.trace * table[unit]
            table[f"trace_x_{unit}"] = product
            table[f"relative_per_{unit.removesuffix('s')}"] = product[reference] / product
    order = ["trace", "trace_low", "trace_high", "relative", "relative_low", "relative_high", "signal_to_noise"]
    order += ["seconds", "trace_x_seconds", "relative_per_second"]
    order += ["evaluations", "trace_x_evaluations", "relative_per_evaluation"] if evaluations is not None else []
    order += ["rank", "top_share", "largest_draw", "not_finite"]
    return table.reindex(columns=[*order, *(name for name in table if name not in order)])
