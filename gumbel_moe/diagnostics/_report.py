"""What `check_unbiased` found, with the numbers behind it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from arviz_stats import mcse as arviz_mcse  # pyright: ignore[reportPrivateImportUsage]

from gumbel_moe._optional import need
from gumbel_moe.diagnostics._evidence import Evidence
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree


@dataclass(frozen=True, eq=False, repr=False)
class UnbiasedReport(Saved):
    """The verdict of [`check_unbiased`][gumbel_moe.diagnostics.check_unbiased]; `print` shows it in words."""

    passed: bool
    """Whether no bias was found, all draws were finite and they looked independent."""
    max_z: float
    """The largest absolute z-score of a coordinate, beyond its allowance for rounding; NaN if a draw was not finite."""
    limit: float
    """What `max_z` may not exceed."""
    detectable_bias: float
    """A bias as large as this in any one coordinate would have been found with probability 0.99, in units of the
    gradient; for each coordinate see `summary`."""
    spread_z: float
    """The t-score of the test for a bias spread over many coordinates."""
    spread_limit: float
    """What `spread_z` may not exceed."""
    detectable_spread: float
    r"""The norm $\sqrt{\sum_i (\text{bias}_i / \sigma_i)^2}$, with $\sigma_i$ the standard deviation of one draw of
    coordinate $i$, that a bias spread over uncorrelated coordinates would have been found at with probability 0.99; NaN
    if no coordinate varies."""
    false_fail_rate: float
    """The probability that an unbiased estimator fails."""
    draws: int
    """Of every chain."""
    chains: int
    reasons: tuple[str, ...]
    """Why it did not pass, in sentences; empty if it did."""
    evidence: Evidence

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per coordinate, in the order of the pytree.

        Columns: `mean` over draws, `exact`, `bias`, `se` of the mean, `z`, `detectable`, `sd` of one draw; and from
        ArviZ `mcse`, `ess`, `r_hat`, which are NaN where the draws were not kept or do not vary.
        """
        e = self.evidence
        ess, r_hat, mcse = (np.full(e.layout.size, np.nan) for _ in range(3))
        ess[e.keep], r_hat[e.keep] = (part[: len(e.keep)] for part in (e.independence.ess, e.independence.r_hat))
        varies = np.isfinite(ess[e.keep])
        if varies.any():
            mcse[e.keep[varies]] = arviz_mcse(e.kept[..., varies].astype(np.float64), chain_axis=0, draw_axis=1)
        columns = {
            "mean": e.exact + e.coordinates.bias,
            "exact": e.exact,
            "bias": e.coordinates.bias,
            "se": e.coordinates.error,
            "z": e.coordinates.z,
            "detectable": e.coordinates.detectable,
            "sd": np.sqrt(e.moments.variance),
            "mcse": mcse,
            "ess": ess,
            "r_hat": r_hat,
        }
        names = pd.Index([e.layout.name(i) for i in range(e.layout.size)], name="parameter")
        return pd.DataFrame(columns, index=names)

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with the kept draws of `gradient` (dims chain, draw, parameter) and their
        random projections, `constant_data` with the exact gradient, attributes with settings and versions.
        """
        e = self.evidence
        names = [e.layout.name(int(i)) for i in e.keep]
        return data_tree(
            {"gradient": e.kept, "projection": e.projections},
            {"exact": e.exact[e.keep]},
            {"parameter": names, "direction": np.arange(e.projections.shape[-1])},
            {"gradient": ["parameter"], "projection": ["direction"]},
            {"exact": ["parameter"]},
            {
                **e.attrs,
                "draws": self.draws,
                "chains": self.chains,
                "coordinates": e.layout.size,
                "false_fail_rate": self.false_fail_rate,
                "passed": self.passed,
                "max_z": self.max_z,
                "detectable_bias": self.detectable_bias,
            },
        )

    @property
    def variance(self) -> float:
        """The trace of the covariance of one draw."""
        return float(np.sum(self.evidence.moments.variance))

    def plot(self, path: str | Path | None = None, *, most: int = 30) -> Any:
        """The biases that stand out most, with intervals around them and what could have been detected.

        **Arguments:**

        - `path`: where to write a PNG; None writes nothing.
        - `most`: coordinates shown.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_forest(
            self.summary, self.passed, self.limit, path, most=most
        )

    def __str__(self) -> str:
        e = self.evidence
        total = self.draws * self.chains
        lines = [
            f"{'PASSED' if self.passed else 'FAILED'}: {total:,} draws of {e.layout.size:,} coordinates",
            f"largest |z| of a coordinate {self.max_z:.2f}, limit {self.limit:.2f}",
            f"t-score of all together {self.spread_z:.2f}, limit {self.spread_limit:.2f}",
            f"an unbiased estimator fails with probability {self.false_fail_rate:g}",
            f"a bias of {self.detectable_bias:.3g} in any one coordinate would have been found with probability 0.99",
        ]
        if np.isfinite(self.detectable_spread):
            lines.append(
                f"so would one spread over many, of {self.detectable_spread:.3g} standard deviations of a draw together"
            )
        if e.independence.distinct < total / 2:
            lines.append(f"only {e.independence.distinct:,} of the draws differ from each other in what was kept")
        return "\n".join([*lines, *(f"- {reason}" for reason in self.reasons)])

    __repr__ = __str__
