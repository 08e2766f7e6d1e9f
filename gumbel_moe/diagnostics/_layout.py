"""A pytree of gradients as one vector: sizes, names of its coordinates, and the way there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@dataclass(frozen=True)
class Layout:
    """Where every leaf of a pytree lies in the vector of all coordinates."""

    structure: Any
    leaves: tuple[str, ...]
    """The path of every leaf, such as `router.bias`."""
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """Of every leaf, and the number of coordinates at the end."""
        return np.concatenate([[0], np.cumsum([math.prod(shape) for shape in self.shapes])]).astype(np.int64)

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return int(self.starts[-1])

    @cached_property
    def dtype(self) -> Any:
        """Wide enough for all leaves, float32 at least."""
        return jnp.result_type(jnp.float32, *self.dtypes)

    @cached_property
    def leaf_of(self) -> np.ndarray:
        """`(size,)`: which leaf a coordinate belongs to."""
        return np.repeat(np.arange(len(self.leaves)), np.diff(self.starts))

    @cached_property
    def eps(self) -> np.ndarray:
        """`(size,)`: the relative rounding of every coordinate's own type."""
        return np.array([float(jnp.finfo(dtype).eps) for dtype in self.dtypes])[self.leaf_of]

    def largest(self, values: np.ndarray) -> np.ndarray:
        """`(size,)`: the largest of `values` in the same leaf."""
        top = np.zeros(len(self.leaves))
        np.maximum.at(top, self.leaf_of, values)
        return top[self.leaf_of]

    def name(self, index: int) -> str:
        """Of a coordinate, such as `router.bias[0,1]`."""
        leaf = int(np.searchsorted(self.starts, index, side="right")) - 1
        shape = self.shapes[leaf]
        if not shape:
            return self.leaves[leaf]
        place = np.unravel_index(int(index - self.starts[leaf]), shape)
        return f"{self.leaves[leaf]}[{','.join(map(str, place))}]"

    def place(self, name: str) -> int:
        """Of the coordinate of that name."""
        leaf, _, inside = name.partition("[")
        try:
            at = self.leaves.index(leaf)
            index = tuple(int(part) for part in inside.removesuffix("]").split(",")) if inside else ()
            if any(i < 0 for i in index):
                raise ValueError
            return int(self.starts[at] + (np.ravel_multi_index(index, self.shapes[at]) if self.shapes[at] else 0))
        except (ValueError, TypeError):
            shapes = ", ".join(f"{leaf}{list(shape)}" for leaf, shape in zip(self.leaves, self.shapes, strict=True))
            raise ValueError(f"there is no coordinate {name!r}; the leaves are {shapes}") from None

    def within(self, paths: Sequence[str]) -> np.ndarray:
        """`(size,)`: whether the coordinate is in a leaf that one of the paths leads to, or leads towards."""
        leaves = [any(f"{leaf}.".startswith(f"{path}.") for path in paths) for leaf in self.leaves]
        return np.array(leaves)[self.leaf_of]

    def vector(self, tree: Any) -> Array:
        """`(size,)`: all coordinates of a tree of this layout."""
        return jnp.concatenate([jnp.ravel(leaf).astype(self.dtype) for leaf in jax.tree.leaves(tree)])

    def numbers(self, tree: Any) -> np.ndarray:
        """`(size,)` float64, on the host."""
        return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


def layout_of(what: str, tree: Any) -> Layout:
    """The layout of a pytree of arrays, or of their shapes; `what` names it in errors."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names, shapes, dtypes = [], [], []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "gradient"
        dtype = getattr(leaf, "dtype", None)
        dtype = np.asarray(leaf).dtype if dtype is None else dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"{what} must be a pytree of floating-point arrays, got dtype {dtype} at {name}")
        names.append(name)
        shapes.append(tuple(np.shape(leaf)))
        dtypes.append(jax.dtypes.canonicalize_dtype(dtype))
    layout = Layout(structure, tuple(names), tuple(shapes), tuple(dtypes))
    if layout.size == 0:
        raise ValueError(f"{what} must hold at least one number, got {structure}")
    return layout


def check_same(what: str, layout: Layout, wanted: str, other: Layout) -> None:
    """Raise unless `what`, of the first layout, has the structure and shapes of `wanted`, of the second."""
    if layout.structure != other.structure:
        raise ValueError(f"{what} must have the structure of {wanted}, {other.structure}, got {layout.structure}")
    for name, shape, other_shape in zip(other.leaves, layout.shapes, other.shapes, strict=True):
        if shape != other_shape:
            raise ValueError(f"{what} must have the shapes of {wanted}, {other_shape} at {name}, got {shape}")


def exact_vector(exact: Any, layout: Layout) -> np.ndarray:
    """`(size,)` float64: the exact gradient, a tree or a function that returns one; raises unless it fits."""
    if callable(exact) and jax.tree_util.all_leaves([exact]):  # a model may be callable too, but is a tree of arrays
        exact = exact()
    check_same("exact", layout_of("exact", exact), "what estimate returns", layout)
    truth = layout.numbers(exact)
    if not np.isfinite(truth).all():
        at = int(np.argmin(np.isfinite(truth)))
        raise ValueError(f"exact must be finite, got {truth[at]} at {layout.name(at)}")
    return truth
