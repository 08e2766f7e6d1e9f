"""Where a program runs, and on what its figures depend."""

import os
import platform
from importlib.metadata import version
from typing import Any

import jax

# A third less time to compile, and none lost when running.
COMPILER: dict[str, str | bool] = {"xla_backend_optimization_level": "1"}
"""The compiler's options for programs that train many starts."""


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    packages = ("gumbel_moe", "jax", "numpyro", "equinox", "optax", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def machine() -> dict[str, Any]:
    """Where this runs."""
    return {"system": platform.platform(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind}
