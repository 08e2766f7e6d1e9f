"""What a page has of every kind of report."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from gumbel_moe.diagnostics.pages import _words as words
from gumbel_moe.diagnostics.pages._html import cell, frame, grid, legend, picture, section
from gumbel_moe.diagnostics.pages._words import Word

if TYPE_CHECKING:
    from gumbel_moe.diagnostics._assignment_report import AssignmentReport
    from gumbel_moe.diagnostics._check_all import EstimatorTable
    from gumbel_moe.diagnostics._check_unbiased import UnbiasedReport
    from gumbel_moe.diagnostics._compare_variance import VarianceComparison
    from gumbel_moe.diagnostics._routing_report import RoutingReport

_INVERTED = ("relative", "relative_per_second", "relative_per_evaluation")
"""Columns of a table of variances whose inverse is shown: every ratio of a page is below 1 where it is good."""


def biases(report: "UnbiasedReport") -> str:
    """The picture of the biases."""
    caption = (
        "The coordinates that stand out most. A bias is found where its line misses 0; one beyond the grey bar would "
        "have been found with probability 0.99."
    )
    return picture(report.plot(), "Biases with their intervals", caption)


def coordinates(report: "UnbiasedReport", more: str = "; the attribute summary has all") -> str:
    """The table of all coordinates, or of the first ones."""
    return frame(report.summary.rename_axis("coordinate"), words.COORDINATES, more)


def estimators(table: "EstimatorTable") -> str:
    """Verdicts, a picture, and the biases of each."""
    caption = (
        "Left, the evidence for a bias: the largest z-score of a coordinate and the t-score of all together, each over "
        "its limit; beyond 1 a bias is found. Right, how large it is, where it is found; and in grey, what would "
        "have been found in a single coordinate with probability 0.99."
    )
    parts = [
        frame(table.shown, words.ESTIMATORS),
        picture(table.plot(), "Evidence for a bias and its size, by estimator", caption),
    ]
    for name, report in table.reports.items():
        parts += [section(f"{name}: bias of every coordinate"), biases(report)]
    return "\n".join(parts)


def variances(comparison: "VarianceComparison") -> str:
    """Picture and table, a column for each estimator."""
    share = f"{comparison.interval:.0%}"
    caption = (
        "Above, the variance of one draw of each estimator (trace of its covariance), over that of "
        f"{comparison.reference}, with {share} intervals; diamonds: the same times the seconds of a draw, which differ "
        "from run to run; squares, where costs are known: times the evaluations. Further left is better. Below, how "
        "the variance is spread over directions: the eigenvalues of the covariance."
    )
    return picture(comparison.plot(), "Variances with their intervals", caption) + _variance_table(comparison)


def routing(report: "RoutingReport") -> str:
    """Weights and load."""
    caption = "Left, the weights of the datapoints that are handled; right, how many every expert is sent and handles."
    return picture(report.plot(), "Weights and load", caption) + frame(report.summary, words.EXPERTS)


def memberships(report: "AssignmentReport") -> str:
    """Who is with whom."""
    caption = "For every two datapoints, the share of the draws in which they have the same expert."
    table = frame(report.summary, words.MEMBERSHIPS, "; the attribute summary has all")
    return picture(report.plot(), "Datapoints that share an expert", caption) + table


def _variance_table(comparison: "VarianceComparison") -> str:
    table = comparison.summary.copy()
    for name in _INVERTED:
        if name in table:
            low, high = f"{name}_low", f"{name}_high"
            table[name] = 1 / table[name]
            if low in table:
                table[low], table[high] = 1 / table[high], 1 / table[low]
    content, named = [], []
    for name in table.columns:
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in table:
            continue
        word = _variance_word(str(name), comparison.reference)
        named.append(word)
        content.append([word.heading, *_with_interval(table, str(name))])
    return grid(["", *map(str, table.index)], content) + legend(named)


def _variance_word(name: str, reference: str) -> Word:
    known = words.VARIANCES.get(name)
    if known is None:  # of a group of coordinates, whose name the user chose
        group = name.removeprefix("trace_")
        return Word(f"variance of {group}", "of one draw, summed over the coordinates of this group")
    return Word(known.heading.format(reference), known.meaning)


def _with_interval(table: pd.DataFrame, name: str) -> list[str]:
    middle: list[Any] = table[name].tolist()
    if name == "biased":
        return ["BIASED" if biased else "no bias found" for biased in middle]
    if f"{name}_low" not in table:
        return [cell(value) for value in middle]
    ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
    intervals = ["" if low == high or low != low else f" ({low:.4g} to {high:.4g})" for low, high in ends]
    return [cell(value) + interval for value, interval in zip(middle, intervals, strict=True)]
