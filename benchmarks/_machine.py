"""What a table of timings was made on."""

import os
import platform

import jax
import numpy as np


def machine() -> dict[str, int | str | None]:
    """Cores, processor, device and versions, for the JSON beside the rows."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "numpy": np.__version__,
    }
