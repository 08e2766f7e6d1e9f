"""Which part of the model and of a batch is where, on a mesh of devices with the axes `data` and `expert`.

Sequences are spread over both axes, the experts of every layer over `expert`, and all else is everywhere. A device
routes its own sequences, in groups, and the experts' buffers cross the `expert` axis (`models/layers/grouped.py`); or
all devices route the whole batch together (`models/layers/together.py`).
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, EXPERT = "data", "expert"
AXES = DATA, EXPERT
SEQUENCES = PartitionSpec(AXES)
EVERYWHERE = PartitionSpec()
_OF_EXPERTS = "experts", "experts"  # attributes of a block and of its layer


class Groups(NamedTuple):
    """How the tokens of a batch are routed: in how many groups on this device, and where the device is.

    Without a number they are one batch, with those of all other devices if there are any.
    """

    number: int | None
    axes: tuple[str, ...] = ()
    expert_axis: str | None = None

    def on(self, mesh: Mesh) -> "Groups":
        """Those of one device of a mesh, inside `on_mesh`; `ValueError` where the devices would have unequally many."""
        if self.number is None:
            return Groups(None, AXES, EXPERT)
        if self.number % mesh.size:
            raise ValueError(f"groups must be a multiple of the {mesh.size} devices of the mesh, got {self.number}")
        return Groups(self.number // mesh.size, AXES, EXPERT)


def make_mesh(data: int, expert: int) -> Mesh:
    """A mesh of `data * expert` devices; `ValueError` where there are not so many."""
    if data * expert > jax.device_count():
        raise ValueError(f"a mesh of {data} x {expert} needs {data * expert} devices, there are {jax.device_count()}")
    kinds = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, expert), AXES, axis_types=kinds, devices=jax.devices()[: data * expert])


def model_specs(tree: Any) -> Any:
    """A `PartitionSpec` for every leaf of a `LanguageModel`, or of what holds trees like it, as an optimiser's state
    does: experts, stacked by layer, are split on a second axis.
    """

    def spec(path: Any, _: Any) -> PartitionSpec:
        names = tuple(getattr(key, "name", None) for key in path)
        return PartitionSpec(None, EXPERT) if _OF_EXPERTS in itertools.pairwise(names) else EVERYWHERE

    return jax.tree_util.tree_map_with_path(spec, tree)


def place(mesh: Mesh, tree: Any, specs: Any) -> Any:
    """The arrays of `tree` on the devices of a mesh."""
    return jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), tree, specs)


def on_mesh(mesh: Mesh, function: Callable[..., Any], out_specs: Any) -> Callable[..., Any]:
    """`function(model, sequences, *others)` on every device: with its experts, its sequences, and all of the others."""

    def run(model: Any, sequences: Any, *others: Any) -> Any:
        specs = (model_specs(model), SEQUENCES, *(EVERYWHERE for _ in others))
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs)(model, sequences, *others)

    return run
