"""Diagnostics: any gradient estimator, tested for bias, its variance measured, and routers seen at work."""

from gumbel_moe.diagnostics._assignment_report import AssignmentReport, assignment_report
from gumbel_moe.diagnostics._check_all import EstimatorTable, check_all
from gumbel_moe.diagnostics._check_unbiased import UnbiasedReport, check_unbiased
from gumbel_moe.diagnostics._compare_variance import VarianceComparison, compare_variance
from gumbel_moe.diagnostics._routing_report import RoutingReport, routing_report

__all__ = [
    "AssignmentReport",
    "EstimatorTable",
    "RoutingReport",
    "UnbiasedReport",
    "VarianceComparison",
    "assignment_report",
    "check_all",
    "check_unbiased",
    "compare_variance",
    "routing_report",
]
