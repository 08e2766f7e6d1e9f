"""Diagnostics: any gradient estimator, tested for bias, its variance measured, and routers seen at work."""

from gumbel_moe.diagnostics._check_unbiased import check_unbiased
from gumbel_moe.diagnostics._report import UnbiasedReport

__all__ = ["UnbiasedReport", "check_unbiased"]
