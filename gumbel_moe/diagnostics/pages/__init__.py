"""Reports as one HTML page each, for `save("x.html")` and the command line; their pictures need matplotlib."""

from gumbel_moe.diagnostics.pages._html import document, rows, section, verdict
from gumbel_moe.diagnostics.pages._sections import biases, coordinates, estimators, memberships, routing, variances

__all__ = [
    "biases",
    "coordinates",
    "document",
    "estimators",
    "memberships",
    "routing",
    "rows",
    "section",
    "variances",
    "verdict",
]
