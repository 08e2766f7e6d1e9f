"""One run: from its beginning or its last checkpoint to its last step, a signal, or a number that is none."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from gumbel_moe.routing import make_router
from inference.language._devices import begin, compiled_step, everywhere
from inference.language._evaluation import Evaluation
from inference.language._settings import Settings
from inference.language._step import TrainState
from inference.language._tensorboard import Board
from inference.shared.processes import agreed, is_first
from inference.training.checkpoints import Checkpoints
from inference.training.journal import Journal, NoJournal
from models.data import Corpus

KEPT = 3  # checkpoints


class NotFiniteError(Exception):
    """A loss or gradient was NaN or infinite; `step` is the first such step, after which nothing was saved."""

    def __init__(self, step: int, metrics: dict[str, float]) -> None:
        wrong = ", ".join(name for name, value in metrics.items() if not np.isfinite(value))
        super().__init__(f"step {step} gave numbers that are not finite ({wrong}); the last checkpoint is from before")
        self.step = step


class Stop:
    """Whether a signal asked for an end."""

    signal: int | None = None


@contextmanager
def until_asked() -> Iterator[Stop]:
    """SIGTERM and SIGINT ask for an end after the current step instead of making one."""
    stop = Stop()

    def ask(number: int, _: Any) -> None:
        stop.signal = number

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def train(settings: Settings, corpus: Corpus, folder: Path, mesh: Mesh | None = None) -> int | None:
    """Train to `settings.steps`; the signal that ended it before, if one did.

    With a mesh, on all of its devices; of several processes the first alone writes metrics, and each the checkpoints of
    what its devices hold.

    **Raises:** `NotFiniteError`; `DamagedError` where there are checkpoints and none is whole.
    """
    journal = Journal if is_first() else NoJournal
    metrics, evaluations = journal(folder / "metrics.jsonl"), journal(folder / "evaluations.jsonl")
    fresh = begin(settings, mesh)
    evaluate = Evaluation(settings, corpus.held_out, mesh)
    text = everywhere(mesh, corpus.train)
    step = compiled_step(settings, mesh, fresh, text)  # before the clock starts
    with Checkpoints(folder / "checkpoints", keep=KEPT, asynchronous=True) as checkpoints, until_asked() as stop:
        state = resumed(checkpoints, fresh)
        at = int(state.step)
        saved = at if state is not fresh else None
        metrics.drop_after(at)
        evaluations.drop_after(at)
        ended, hidden = None, None if is_first() else True
        with (
            Board(folder / "tensorboard" if is_first() else None, at + 1) as board,
            tqdm(total=settings.steps, initial=at, desc=settings.router, unit="step", disable=hidden) as bar,
        ):
            while at < settings.steps and (ended := agreed(stop.signal)) is None:
                state, line = measured(step, state, text, settings.tokens)
                at += 1
                if not all(np.isfinite(value) for value in line.values()):
                    raise NotFiniteError(at, line)
                metrics.add(at, {name: np.asarray(value) for name, value in line.items()})
                board.add(at, line)
                bar.update()
                bar.set_postfix({"bits per byte": f"{line['bits_per_byte']:.3f}"}, refresh=False)
                if at % settings.every == 0 or at == settings.steps:
                    _evaluate(settings, mesh, evaluate, state, at, evaluations, board)
                    checkpoints.save(state)
                    saved = at
        if saved != at:
            checkpoints.save(state)
        return ended


def measured(step: Any, state: TrainState, text: jax.Array, tokens: int) -> tuple[TrainState, dict[str, float]]:
    """The state after a step, and the step's metrics with how fast it was."""
    began = time.perf_counter()
    state, metrics = step(state, text)
    line = {name: float(value) for name, value in metrics.items()}
    return state, {**line, "tokens_per_second": tokens / (time.perf_counter() - began)}


def resumed(checkpoints: Checkpoints, fresh: TrainState) -> TrainState:
    """The last whole state, or the fresh one where none was kept; damaged ones are told of."""
    state = checkpoints.latest(fresh)
    for step, place in checkpoints.moved.items():
        told = f"the checkpoint of step {step} is damaged; it is now {place}, and an earlier one is used"
        print(told, file=sys.stderr)
    return fresh if state is None else state


def _evaluate(
    settings: Settings,
    mesh: Mesh | None,
    evaluate: Evaluation,
    state: TrainState,
    at: int,
    evaluations: Journal,
    board: Board,
) -> None:
    found = evaluate(state)
    for way, numbers in found.items():
        board.add(at, numbers, f"{way}/")
    line: dict[str, Any] = {f"{way}/{name}": np.asarray(x) for way, part in found.items() for name, x in part.items()}
    if (seconds := _routing_seconds(settings, mesh, state)) is not None:
        line["routing_seconds"] = np.asarray(seconds)
        board.add(at, {"routing_seconds": seconds})
    evaluations.add(at, line)


def _routing_seconds(settings: Settings, mesh: Mesh | None, state: TrainState) -> float | None:
    """What the matchings of a step take a device by themselves, on logits of the size and spread that the first layer's
    have.
    """
    if not settings.method.keeps_prices:
        return None
    route = _route(settings)
    network: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[0], state.model.blocks.experts.router_network)
    seen = jax.random.normal(jax.random.key(0), (settings.tokens_of_group, settings.width))
    logits = jax.vmap(network)(seen)
    jax.block_until_ready(route(jax.random.key(0), logits))
    began = time.perf_counter()
    groups = max(1, settings.groups * settings.draws_of_batch // (1 if mesh is None else mesh.size))
    for number in range(settings.layers * groups):
        jax.block_until_ready(route(jax.random.key(number), logits))
    return time.perf_counter() - began


@cache
def _route(settings: Settings) -> Any:
    """Compiled once, not for every evaluation."""
    router = make_router(settings.router, settings.capacity)
    return jax.jit(lambda key, logits: router(key, logits).expert)
