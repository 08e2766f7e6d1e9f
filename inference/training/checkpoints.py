"""Training states on disk, by orbax: whole or not at all, the last few of them; one that was damaged is found out."""

import json
from hashlib import file_digest
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import jax
import orbax.checkpoint as ocp

from gumbel_moe._whole_file import write_json
from inference.shared.processes import is_first, wait_for_all

_SUMS = "checksums.json"


class Resumable(Protocol):
    """A training state: a named tuple of arrays with a step and a key."""

    @property
    def step(self) -> Any:
        """How many steps led to it."""
        ...

    @property
    def key(self) -> Any:
        """A JAX key."""
        ...

    def _replace(self, **fields: Any) -> Self: ...


State = TypeVar("State", bound=Resumable)


class DamagedError(Exception):
    """There are checkpoints, and none of them is whole."""


class Checkpoints:
    """The checkpoints in a folder, the last `keep` of them; a context that closes what it opened.

    By default a save is waited for, so that a step in the metrics has its checkpoint on disk. `asynchronous` ones go on
    beside the training, and have ended before the next one begins and before the context ends.

    Several processes of one run, in the same folder, each write what their devices hold, and do all that is here
    together.
    """

    def __init__(self, folder: Path, *, keep: int = 2, asynchronous: bool = False) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=asynchronous)
        self._folder = folder.absolute()
        # Not told how, the manager would take from the last step how all are kept, though that one be damaged.
        handler = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(self._folder, item_handlers=handler, options=options)
        self._asynchronous = asynchronous
        self._begun: int | None = None
        self.moved: dict[int, Path] = {}
        """Damaged steps that `latest` found, and where it put them."""

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._finish()
        finally:
            self._manager.close()

    def save(self, state: Resumable) -> None:
        """Keep `state` under its step."""
        self._finish()
        step = int(state.step)
        self._manager.save(step, args=ocp.args.StandardSave(_plain(state)))
        self._begun = step
        if not self._asynchronous:
            self._finish()

    def _finish(self) -> None:
        """Wait for the save that was begun, and write the checksums of its files, which are there only now."""
        self._manager.wait_until_finished()
        if self._begun is not None and is_first():
            write_json(self._folder / str(self._begun) / _SUMS, _checksums(self._folder / str(self._begun)))
        self._begun = None

    def latest(self, like: State) -> State | None:
        """The last state that is whole, of the structure of `like` and where that is; None when nothing was kept.

        Damaged ones of later steps are moved to a folder beside the checkpoints: their steps will be saved again.

        **Raises:** `DamagedError` where states were kept and none is whole; all of them stay where they are.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                state = self._read(step, like)
            except Exception as error:  # a damaged file can be wrong in any way
                damaged[step] = (str(error).splitlines() or [type(error).__name__])[0][:200]
                continue
            self._move_away(list(damaged))
            return state
        if damaged:
            told = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            raise DamagedError(f"no checkpoint in {self._folder} can be read ({told})")
        return None

    def _read(self, step: int, like: State) -> State:
        _check_whole(self._folder / str(step))
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), _plain(like)
        )
        plain: Any = self._manager.restore(step, args=ocp.args.StandardRestore(target))
        return plain._replace(key=jax.random.wrap_key_data(plain.key))

    def _move_away(self, steps: list[int]) -> None:
        if not steps:
            return
        beside = self._folder.with_name(f"{self._folder.name}_damaged")
        places = {step: beside / f"{step}.{len(list(beside.glob(f'{step}.*')))}" for step in steps}
        self.moved.update(places)
        wait_for_all("damaged checkpoints have been read and their new places found")
        if is_first():
            beside.mkdir(exist_ok=True)
            for step, place in places.items():
                (self._folder / str(step)).rename(place)
        wait_for_all("damaged checkpoints have been moved")
        self._manager.reload()


def _plain(state: State) -> State:
    """The key as the integers it is made of: orbax keeps ordinary arrays."""
    return state._replace(key=jax.random.key_data(state.key))


def _checksums(folder: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _SUMS:
            with path.open("rb") as file:
                sums[path.relative_to(folder).as_posix()] = file_digest(file, "sha256").hexdigest()
    return sums


def _check_whole(folder: Path) -> None:
    """Before anything is read: arrays would unpack to something else after a bit has flipped, and nobody notice.

    A checkpoint without checksums, of a process that was killed before it could write them, is tried as it is.
    """
    path = folder / _SUMS
    if path.exists() and not json.loads(path.read_text()).items() <= _checksums(folder).items():
        raise ValueError("its files are not those that were saved")
