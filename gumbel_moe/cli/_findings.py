"""What `diagnose` found, as numbers for a file, as a table to print and as a page."""

import math
from typing import Any, NamedTuple

import numpy as np

from gumbel_moe.cli._json import of_check
from gumbel_moe.diagnostics import RoutingReport, UnbiasedReport, VarianceComparison, pages

_TIMED = ("seconds", "trace_x_seconds", "relative_per_second")
_SETTINGS = {
    "n": "datapoints",
    "experts_per_datapoint": "experts per datapoint",
    "scale": "standard deviation of the logits",
    "draws": "draws of each chain",
    "false_fail_rate": "false-fail rate",
}


class Findings(NamedTuple):
    """Of one run."""

    settings: dict[str, Any]
    check: UnbiasedReport
    routing: RoutingReport
    comparison: VarianceComparison
    rate: float
    """Shared by the tests of the gradient and of the weights."""

    @property
    def passed(self) -> bool:
        """Neither the gradient nor the weights were found biased."""
        return self.check.passed and self.routing.unbiased

    @property
    def name(self) -> str:
        """Of what was tested."""
        router = self.settings["router"]
        return router if self.settings["estimator"] == "corrected" else f"{router}, uncorrected"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not, in sentences."""
        wrong = "the weights are biased: a mean of w 1(z = j) is {:.1f} standard errors from p, limit {:.1f}"
        extra = () if self.routing.unbiased else (wrong.format(self.routing.max_z, self.routing.limit),)
        return (*self.check.reasons, *extra)

    @property
    def variance(self) -> float:
        """The trace of the covariance, of the draws that were compared with independent ones."""
        return float(self.comparison.summary["trace"].iloc[-1])

    @property
    def relative(self) -> tuple[float, float, float]:
        """The trace of the covariance over that of independent draws, with the ends of an interval."""
        row = self.comparison.summary.iloc[-1]
        with np.errstate(divide="ignore"):  # infinite where independent draws do not vary
            return 1 / row["relative"], 1 / row["relative_high"], 1 / row["relative_low"]


def as_json(found: Findings) -> dict[str, Any]:
    """Without timings."""
    routing = found.routing
    relative, low, high = found.relative
    return {
        **of_check(found.check),
        "passed": found.passed,
        "false_fail_rate": found.rate,
        "variance": found.variance,
        "relative_variance": {"to": "independent", "value": relative, "low": low, "high": high},
        "reasons": list(found.reasons),
        "weights": {
            "unbiased": routing.unbiased,
            "max_z": routing.max_z,
            "limit": routing.limit,
            "effective_fraction": routing.effective_fraction,
            "max_weight": routing.max_weight,
            "largest_share": routing.largest_share,
            "skipped": routing.skipped,
            "max_violation": routing.max_violation,
            "max_violation_sent": routing.max_violation_sent,
            "entropy": routing.entropy,
        },
        "comparison": found.comparison.summary.drop(columns=list(_TIMED)).to_dict("index"),
        "arguments": found.settings,
    }


def table(found: Findings) -> list[tuple[str, str]]:
    """Rows of a name and what was found."""
    check, routing = found.check, found.routing
    relative, *ends = found.relative
    interval = ", 95% interval {:.3f} to {:.3f}".format(*ends) if all(map(math.isfinite, ends)) else ""
    total = check.draws * check.chains
    share = check.relative_detectable_bias
    of_norm = f", {share:.3g} of the gradient's norm," if math.isfinite(share) else ""
    return [
        ("router", found.name),
        ("draws", f"{total:,} of {len(check.summary):,} coordinates"),
        ("largest |z| of a coordinate", f"{check.max_z:.2f}, limit {check.limit:.2f}"),
        ("t-score of all together", f"{check.spread_z:.2f}, limit {check.spread_limit:.2f}"),
        ("largest |z| of the weights", f"{routing.max_z:.2f}, limit {routing.limit:.2f}"),
        ("detectable bias", f"{check.detectable_bias:.3g}{of_norm} in any one coordinate, with probability 0.99"),
        ("variance (trace)", f"{found.variance:.4g}"),
        ("over that of independent draws", f"{relative:.3f}{interval}"),
        ("weights", f"effective fraction {routing.effective_fraction:.3f}, largest {routing.max_weight:.3g}"),
        ("skipped", f"{routing.skipped:.1%}"),
        ("busiest expert over the mean", f"{1 + routing.max_violation:.2f}"),
    ]


def verdict(found: Findings) -> str:
    """One line, and one for every reason."""
    if found.passed:
        return f"PASSED: no bias found (an unbiased router is failed with probability {found.rate:g})"
    return "\n".join(["FAILED: not an unbiased gradient", *(f"- {reason}" for reason in found.reasons)])


def page(found: Findings) -> str:
    """All of `report.html`."""
    return pages.document(
        f"{found.name}: {'passed' if found.passed else 'failed'}",
        f"Is the gradient of {found.name} unbiased?",
        pages.verdict(verdict(found), found.passed),
        pages.rows(table(found)),
        pages.section("Bias of every coordinate"),
        pages.biases(found.check),
        pages.section("Variance beside that of independent draws, which have no capacity"),
        pages.variances(found.comparison),
        pages.section("Weights and load"),
        pages.routing(found.routing),
        pages.section("Arguments"),
        pages.rows((_SETTINGS.get(name, name), str(value)) for name, value in found.settings.items()),
        pages.section("Coordinates"),
        pages.coordinates(found.check, "; report.json has all"),
    )
