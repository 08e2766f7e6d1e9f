"""Training states on disk, by orbax: whole or not at all, the last two of them."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from inference._loop import TrainState


class Checkpoints:
    """The checkpoints in a folder; a context that closes what it opened."""

    def __init__(self, folder: Path) -> None:
        # Waiting for every save costs little here, and a step in the metrics then has its checkpoint on disk.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Keep `state` under its step."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(_plain(state)))
        self._manager.wait_until_finished()

    def latest(self, like: TrainState) -> TrainState | None:
        """The last state kept, of the structure of `like`; None when there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), _plain(like))
        plain: Any = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return plain._replace(key=jax.random.wrap_key_data(plain.key))


def _plain(state: TrainState) -> TrainState:
    """The key as the integers it is made of: orbax keeps ordinary arrays."""
    return state._replace(key=jax.random.key_data(state.key))
