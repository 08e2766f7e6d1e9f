"""What training the latent routing leaves, in memory and on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.shared.folder import write_arrays

_ARRAYS = ("at", "wanted", "demand", "load", "busiest", "away")
_PARTS = ("curves", "params")


@dataclass
class Fit:
    """One estimator's; all arrays but `at` start with an axis of starts."""

    router: str
    kind: str
    at: np.ndarray
    """`(points,)` steps taken."""
    curves: dict[str, np.ndarray]
    """`(starts, points)`: `elbo` and `log_likelihood` (training, exact), `test` (log-likelihood), in nats per
    datapoint; `squared_error` of the gradient's estimate, its mean over the steps since the point before."""
    params: dict[str, np.ndarray]
    wanted: np.ndarray
    """`(starts, k)` training datapoints that the guide would give each expert, expected."""
    demand: np.ndarray
    """`(starts, k)` datapoints that a draw sends to each expert, means over draws."""
    load: np.ndarray
    """`(starts, k)` datapoints that each expert has to compute for a draw, means over draws."""
    busiest: np.ndarray
    """`(starts,)` datapoints that the busiest expert has to compute for a draw, mean over draws."""
    away: np.ndarray
    """`(starts,)` total variation between guide and exact posterior, mean over the training part."""
    seconds: float

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for part in _PARTS:
            arrays |= {f"{part}/{name}": array for name, array in getattr(self, part).items()}
        about = json.dumps({"router": self.router, "kind": self.kind, "seconds": self.seconds})
        write_arrays(path, {**arrays, "about": np.array(about)})

    @classmethod
    def read(cls, path: Path) -> "Fit":
        """What `save` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        fields: Any = json.loads(str(arrays["about"])) | {name: arrays[name] for name in _ARRAYS}
        fields |= {
            part: {name.removeprefix(f"{part}/"): arrays[name] for name in arrays if name.startswith(f"{part}/")}
            for part in _PARTS
        }
        return cls(**fields)
