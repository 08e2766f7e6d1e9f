"""What was found, as numbers for a file: null for what is not finite, and no timings."""

import json
import math
from importlib.metadata import version
from typing import Any

import jax

from gumbel_moe.diagnostics import UnbiasedReport

_PACKAGES = ("gumbel_moe", "jax", "jaxlib", "numpyro", "numpy", "scipy", "arviz_base", "arviz_stats")


def as_text(numbers: dict[str, Any]) -> str:
    """The file, with versions and the device added: the same arguments give the same bits."""
    where = {
        "versions": {package: version(package) for package in _PACKAGES},
        "device": jax.devices()[0].device_kind,
    }
    return json.dumps(_plain({**numbers, **where}), indent=1, allow_nan=False) + "\n"


def of_check(check: UnbiasedReport) -> dict[str, Any]:
    """The tests of one estimator."""
    return {
        "passed": check.passed,
        "max_z": check.max_z,
        "limit": check.limit,
        "detectable_bias": check.detectable_bias,
        "relative_detectable_bias": check.relative_detectable_bias,
        "spread_z": check.spread_z,
        "spread_limit": check.spread_limit,
        "detectable_spread": check.detectable_spread,
        "variance": check.variance,
        "reasons": list(check.reasons),
        "coordinates": check.summary.reset_index().to_dict("records"),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
