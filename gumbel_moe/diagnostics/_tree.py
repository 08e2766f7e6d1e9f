"""Results as an ArviZ DataTree that can be written to netCDF."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from arviz_base import from_dict

_PACKAGES = ("gumbel_moe", "jax", "numpyro", "numpy", "arviz_base", "arviz_stats")


def data_tree(
    posterior: Mapping[str, np.ndarray],
    constant: Mapping[str, np.ndarray],
    coords: Mapping[str, Any],
    dims: Mapping[str, list[str]],
    attrs: Mapping[str, Any],
) -> Any:
    """Groups `posterior` (dims chain, draw, ...) and `constant_data`; `attrs` with the versions, on the root."""
    tree = from_dict(
        {"posterior": dict(posterior), "constant_data": dict(constant)},
        coords={name: np.asarray(values) for name, values in coords.items()},
        dims=dict(dims),
    )
    tree.attrs.update({name: plain(value) for name, value in attrs.items() if value is not None})
    tree.attrs.update({f"{package}_version": version(package) for package in _PACKAGES})
    tree.attrs["device"] = jax.devices()[0].device_kind
    return tree


def plain(value: Any) -> Any:
    """`value` as netCDF can hold it: a number, a string, or an array of numbers."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | int | float | np.integer | np.floating):
        return value
    array = np.asarray(value) if isinstance(value, list | tuple | np.ndarray | jax.Array) else np.empty(0, object)
    return array if array.dtype.kind in "iuf" and array.size else str(value)
