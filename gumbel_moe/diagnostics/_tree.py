"""Results as an ArviZ DataTree that can be written to netCDF."""

import json
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arviz_base import from_dict

_PACKAGES = ("gumbel_moe", "jax", "numpyro", "numpy", "arviz_base", "arviz_stats")


def data_tree(
    posterior: Mapping[str, np.ndarray],
    constant: Mapping[str, np.ndarray],
    coords: Mapping[str, Any],
    dims: Mapping[str, list[str]],
    constant_dims: Mapping[str, list[str]],
    attrs: Mapping[str, Any],
) -> Any:
    """Groups `posterior` (dims chain, draw, ...) and `constant_data`; `attrs` with the versions, on the root.

    Names of the posterior that a DataTree cannot hold, or that others have, are replaced; `renamed` among the
    attributes is then the JSON of what was replaced: `{stored: original}`.
    """
    stored = stored_names(posterior, {*constant, *coords, "chain", "draw"})
    all_dims = {**constant_dims, **{stored[name]: axes for name, axes in dims.items()}}
    tree = from_dict(
        {
            "posterior": {stored[name]: storable(array) for name, array in posterior.items()},
            "constant_data": {name: storable(array) for name, array in constant.items()},
        },
        coords={name: np.asarray(values) for name, values in coords.items()},
        dims=all_dims,
    )
    tree.attrs.update({str(name): plain(value) for name, value in attrs.items() if value is not None})
    renamed = {new: name for name, new in stored.items() if new != name}
    if renamed:
        tree.attrs["renamed"] = json.dumps(renamed)
    tree.attrs.update({f"{package}_version": version(package) for package in _PACKAGES})
    tree.attrs["device"] = jax.devices()[0].device_kind
    return tree


def stored_names(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """For every name one without `/`, that is not taken; all different, and its own if it can."""
    names = list(names)
    stored = {name: name for name in names if "/" not in name and name not in taken}
    used = {*taken, *names}
    for name in names:
        if name not in stored:
            base = candidate = name.replace("/", ".")
            number = 1
            while candidate in used:
                number += 1
                candidate = f"{base}_{number}"
            stored[name] = candidate
            used.add(candidate)
    return stored


def storable(array: Any) -> np.ndarray:
    """`array` in a type that netCDF has: bfloat16 and its like, which NumPy does not know, are widened."""
    array = np.asarray(array)
    if array.dtype.kind != "V":
        return array
    return array.astype(np.float32 if jnp.issubdtype(array.dtype, jnp.floating) else np.int32)


def plain(value: Any) -> Any:
    """`value` as netCDF can hold it: a number, a string, or an array of numbers."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, str | int | float | np.integer | np.floating):
        return value
    try:
        array = np.asarray(value) if isinstance(value, list | tuple | np.ndarray | jax.Array) else np.empty(0, object)
    except ValueError:  # rows of different lengths
        return str(value)
    return array if array.dtype.kind in "iuf" and array.size else str(value)
