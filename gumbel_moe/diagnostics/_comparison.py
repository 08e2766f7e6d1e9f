"""What `compare_variance` found."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gumbel_moe._optional import need
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._spectrum import Spectrum
from gumbel_moe.diagnostics._tree import data_tree


@dataclass(frozen=True, eq=False, repr=False)
class VarianceComparison(Saved):
    """From [`compare_variance`][gumbel_moe.diagnostics.compare_variance]; `print` shows the table."""

    summary: pd.DataFrame
    """One row per estimator. `trace`: of the covariance of one draw, with `trace_low` and `trace_high`; `relative`: the
    reference's trace over this one, above 1 where fewer draws are needed, with `relative_low` and `relative_high`;
    `signal_to_noise`: squared norm of the mean over the trace; `seconds`: of one draw, median; `evaluations`: of
    experts; `trace_x_seconds`, `trace_x_evaluations`: the variance for a unit of cost; `relative_per_second`,
    `relative_per_evaluation`: the reference's over this one; `rank`: effective number of directions that share the
    variance; `top_share`: of the largest eigenvalue; `largest_draw`: what the largest draw contributes to the trace
    (near 1: a tail so heavy that no interval holds); `not_finite`: draws that were NaN or infinite."""
    reference: str
    interval: float
    """Probability that each interval covers."""
    draws: int
    """Of every chain."""
    chains: int
    spectra: dict[str, Spectrum]
    """By estimator: `eigenvalues` from the largest down (all of them for up to 256 coordinates; else those of a few
    draws, the largest of which are too large), and the effective `rank`."""
    squared_deviations: np.ndarray
    """`(chains, draws, estimators)`: what every draw adds to the trace, up to a small constant its squared distance
    from the mean."""
    attrs: dict[str, Any]

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with `squared_deviation` of every draw (its mean is the trace), by estimator;
        `constant_data` with the summary and the eigenvalues.
        """
        names = list(self.summary.index)
        longest = max(len(spectrum.eigenvalues) for spectrum in self.spectra.values())
        eigenvalues = np.full((len(names), longest), np.nan)
        for row, name in zip(eigenvalues, names, strict=True):
            values = self.spectra[name].eigenvalues
            row[: len(values)] = values
        columns = {name: self.summary[name].to_numpy(np.float64) for name in self.summary}
        return data_tree(
            {"squared_deviation": self.squared_deviations},
            {**columns, "eigenvalue": eigenvalues},
            {"estimator": names, "place": np.arange(longest)},
            {"squared_deviation": ["estimator"]},
            {**{name: ["estimator"] for name in columns}, "eigenvalue": ["estimator", "place"]},
            {**self.attrs, "reference": self.reference, "draws": self.draws, "chains": self.chains},
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """Variance and efficiency with intervals, and the spectra; `path` is where to write a PNG, if anywhere.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_comparison(self, path)

    def __str__(self) -> str:
        title = f"{self.draws * self.chains:,} draws each; relative to {self.reference}, {self.interval:.0%} intervals"
        return f"{title}\n{self.summary.T.to_string(float_format='{:.4g}'.format)}"

    __repr__ = __str__
