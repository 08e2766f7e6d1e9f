"""Many estimators of one gradient, each with its verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jax import Array

from gumbel_moe._checks import check_rate
from gumbel_moe._optional import need
from gumbel_moe.diagnostics._check_unbiased import UnbiasedReport, check_unbiased
from gumbel_moe.diagnostics._draws import GradientEstimator
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree

_WORDS = {
    "passed": "verdict",
    "max_z": "max |z|",
    "spread_z": "t of all",
    "relative_bias": "bias / gradient",
    "detectable_bias": "detectable",
    "relative_detectable_bias": "detectable / gradient",
}


@dataclass(frozen=True, eq=False, repr=False)
class EstimatorTable(Saved):
    """From [`check_all`][gumbel_moe.diagnostics.check_all]; `print` shows the table, and why an estimator failed."""

    reports: dict[str, UnbiasedReport]
    """By estimator, as [`check_unbiased`][gumbel_moe.diagnostics.check_unbiased] has them."""
    false_fail_rate: float
    """The probability that any of them fails if all are unbiased."""

    @property
    def passed(self) -> bool:
        """Whether all passed."""
        return all(report.passed for report in self.reports.values())

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per estimator: `passed`; `max_z` and `spread_z` with their limits; `bias`, the norm of the mean's
        distance from the exact gradient, the mean's own noise taken out (0 where the noise explains all of it);
        `detectable_bias`, in any one coordinate; both also over the norm of the exact gradient (`relative_bias`,
        `relative_detectable_bias`; NaN where that is 0 or not known); and `variance`, the trace of one draw's
        covariance.
        """
        rows = {name: _row(report) for name, report in self.reports.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")

    @property
    def shown(self) -> pd.DataFrame:
        """The summary without the biases that were not found: what is there instead of them is noise."""
        columns = ["bias", "relative_bias"]
        return self.summary.assign(**{name: self.summary[name].where(~self.summary["passed"]) for name in columns})

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with the kept draws of `gradient` (dims chain, draw, estimator, parameter),
        `constant_data` with the exact gradient and the summary.
        """
        names, reports = list(self.reports), list(self.reports.values())
        first = reports[0].evidence
        columns = {name: self.summary[name].to_numpy(np.float64) for name in self.summary}
        return data_tree(
            {"gradient": np.stack([report.evidence.kept for report in reports], axis=2)},
            {"exact": first.exact[first.keep], **columns},
            {"estimator": names, "parameter": [first.layout.name(int(i)) for i in first.keep]},
            {"gradient": ["estimator", "parameter"]},
            {"exact": ["parameter"], **{name: ["estimator"] for name in columns}},
            {**first.attrs, "draws": reports[0].draws, "chains": reports[0].chains},
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """The evidence for a bias of every estimator, and how large it is; `path` is where to write a PNG, if anywhere.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_verdicts(self.summary, path)

    def page(self) -> str:
        """One HTML page with all verdicts, and the biases of each estimator.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """
        pages = need("gumbel_moe.diagnostics.pages", "a page")
        heading = f"Unbiased? {', '.join(self.reports)}"
        return pages.document(heading, heading, pages.verdict(self._verdict(), self.passed), pages.estimators(self))

    def _verdict(self) -> str:
        failed = {name: report for name, report in self.reports.items() if not report.passed}
        first = next(iter(self.reports.values()))
        draws = f"{first.draws * first.chains:,} draws of {first.evidence.layout.size:,} coordinates"
        state = f"FAILED: {', '.join(failed)}" if failed else "PASSED: no bias found"
        told = [f"{state}; {draws} each, unbiased ones fail with probability {self.false_fail_rate:g}"]
        told += [f"- {name}: {reason}" for name, report in failed.items() for reason in report.reasons]
        return "\n".join(told)

    def __str__(self) -> str:
        table = self.shown.drop(columns=["limit", "spread_limit"]).rename(columns=_WORDS)
        table["verdict"] = ["passed" if passed else "FAILED" for passed in table["verdict"]]
        return f"{self._verdict()}\n{table.to_string(float_format='{:.3g}'.format, na_rep='-')}"

    __repr__ = __str__


def check_all(
    estimates: Mapping[str, GradientEstimator | tuple[GradientEstimator, GradientEstimator]],
    exact: Any,
    key: Array,
    draws: int = 2000,
    chains: int = 4,
    false_fail_rate: float = 1e-6,
    *,
    progress: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> EstimatorTable:
    """Test many estimators of the same gradient, each as `check_unbiased` does, with their verdicts in one table.

    The false-fail rate is shared: each of `m` estimators is tested at `false_fail_rate / m`. All have the same key.

    **Arguments:**

    - `estimates`: by name, functions of a JAX key that return pytrees of the same structure and shapes; pairs of them
      if `exact` is None.
    - `exact`, `key`, `draws`, `chains`, `progress`, `attrs`: as in
      [`check_unbiased`][gumbel_moe.diagnostics.check_unbiased].
    - `false_fail_rate`: the probability that any fails if all are unbiased, between 0 and 1.

    **Returns:** an [`EstimatorTable`][gumbel_moe.diagnostics.EstimatorTable].

    **Raises:** `TypeError` when `estimates` is no dict from names; `ValueError` when it is empty; and as
    `check_unbiased`, with the name of the estimator.

    ```python
    >>> import jax
    >>> from gumbel_moe.diagnostics import check_all
    >>> right = lambda key: jax.random.normal(key, (3,)) + 1
    >>> wrong = lambda key: 1.2 * right(key)
    >>> table = check_all({"right": right, "wrong": wrong}, jax.numpy.ones(3), jax.random.key(0))
    >>> table.summary["passed"].to_dict()
    {'right': True, 'wrong': False}
    >>> print(f"{table.summary.relative_bias['wrong']:.1f}")
    0.2

    ```
    """
    if not isinstance(estimates, Mapping) or not all(isinstance(name, str) for name in estimates):
        raise TypeError(f"estimates must be a dict from names to functions, got {type(estimates).__name__}")
    if not estimates:
        raise ValueError("estimates must have at least one name, got none")
    rate, reports = check_rate(false_fail_rate), {}
    for name, estimate in estimates.items():
        noted = {**(attrs or {}), "estimator": name}
        try:
            reports[name] = check_unbiased(
                estimate, exact, key, draws, chains, rate / len(estimates), progress=progress, attrs=noted
            )
        except (TypeError, ValueError) as error:
            error.add_note(f"of the estimator {name!r}")
            raise
    sizes = {name: report.evidence.layout.size for name, report in reports.items()}
    if len(set(sizes.values())) > 1:  # only without an exact gradient, which they would have been held against
        raise ValueError(f"estimates must return the same shapes, got coordinates in the numbers {sizes}")
    return EstimatorTable(reports, rate)


def _row(report: UnbiasedReport) -> dict[str, Any]:
    e = report.evidence
    noise = report.variance / e.moments.count
    with np.errstate(all="ignore"):
        bias = float(np.sqrt(max(0.0, float(np.sum(e.coordinates.bias**2)) - noise)))
    norm = float(np.linalg.norm(e.exact))
    return {
        "passed": report.passed,
        "max_z": report.max_z,
        "limit": report.limit,
        "spread_z": report.spread_z,
        "spread_limit": report.spread_limit,
        "bias": bias,
        "relative_bias": bias / norm if norm > 0 else float("nan"),
        "detectable_bias": report.detectable_bias,
        "relative_detectable_bias": report.relative_detectable_bias,
        "variance": report.variance,
    }
