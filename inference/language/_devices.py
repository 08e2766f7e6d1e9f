"""On which devices a run is, and where its arrays are there."""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from inference.language._settings import Settings
from inference.language._step import TrainState, first_state, train_step
from models.transformer import AXES, EVERYWHERE, make_mesh, model_specs


def mesh_sizes(text: str) -> tuple[int, int]:
    """Of `data=2,expert=4`; an axis that is not named has the size 1."""
    sizes = dict.fromkeys(AXES, 1)
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in sizes:
            raise argparse.ArgumentTypeError(f"must be like data=2,expert=4, got the axis {name!r}")
        if not size.isdecimal() or int(size) < 1:
            raise argparse.ArgumentTypeError(f"must give {name} a whole number of at least 1, got {size!r}")
        sizes[name] = int(size)
    return sizes[AXES[0]], sizes[AXES[1]]


def mesh_for(settings: Settings, sizes: tuple[int, int] | None) -> Mesh | None:
    """The mesh of the sizes that were asked for, or None.

    **Raises:** `ValueError` where it does not fit the settings or the devices, or leaves out those of a process.
    """
    if sizes is None:
        if jax.process_count() > 1:
            raise ValueError(f"{jax.process_count()} processes need --mesh, with {jax.device_count()} devices")
        return None
    mesh, (data, expert) = make_mesh(*sizes), sizes
    named = f"--mesh data={data},expert={expert}"
    if settings.batch % mesh.size:
        raise ValueError(f"--batch must be a multiple of the {mesh.size} devices of {named}, got {settings.batch}")
    several = settings.draws_of_batch > 1
    if (settings.groups > 1 or several) and settings.groups % mesh.size:
        allowed, told = ("a multiple", " with several --draws") if several else ("1 or a multiple", "")
        raise ValueError(
            f"--groups must be {allowed} of the {mesh.size} devices of {named}{told}, got {settings.groups}"
        )
    if not settings.method.by_token:
        raise ValueError(f"{settings.router} runs on one device: its experts choose from a batch, got {named}")
    if settings.sizes.experts % expert:
        raise ValueError(f"the experts must be a multiple of expert in {named}, got {settings.sizes.experts}")
    if jax.process_count() > 1 and mesh.size != jax.device_count():
        raise ValueError(f"{named} must have all {jax.device_count()} devices of the processes")
    return mesh


def shardings(settings: Settings, mesh: Mesh) -> TrainState:
    """Of a training state: experts and what the optimiser keeps of them are split, all else is everywhere."""
    specs = model_specs(jax.eval_shape(lambda: first_state(settings)))
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def begin(settings: Settings, mesh: Mesh | None) -> TrainState:
    """The state before the first step, where it belongs."""
    where = None if mesh is None else shardings(settings, mesh)
    return jax.jit(lambda: first_state(settings), out_shardings=where)()


def compiled_step(settings: Settings, mesh: Mesh | None, state: TrainState, text: jax.Array) -> Any:
    """The training step of such arrays, as a program: `(state, text)` to the next state and metrics."""
    where = None if mesh is None else (shardings(settings, mesh), NamedSharding(mesh, EVERYWHERE))
    step = jax.jit(lambda state, text: train_step(settings, state, text, mesh), out_shardings=where)
    return step.lower(state, text).compile()


def everywhere(mesh: Mesh | None, array: np.ndarray) -> jax.Array:
    """An array of the host on every device; all processes hold the same."""
    if mesh is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, EVERYWHERE), lambda index: array[index])
