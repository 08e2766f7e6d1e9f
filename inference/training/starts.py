"""One method on one task from many starting points at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from inference.shared.machine import COMPILER
from inference.training.loop import TrainState, advance_and_evaluate, first_state
from inference.training.methods import Method
from inference.training.tasks import Task

_POINTS = 40  # evaluations over a run, beside the one at the start


@dataclass
class Outcome:
    """What came out of one method on one task."""

    data: str
    router: str
    kind: str
    at: list[int] = field(default_factory=list)
    """Steps taken at each point."""
    points: list[dict[str, np.ndarray]] = field(default_factory=list)
    """For each point the metrics of the task's evaluation and the fields of `Window` of the loop, starts first."""
    states: TrainState | None = None
    """At the last point, stacked over starts."""
    finished: bool = False
    compile_seconds: float = 0.0
    run_seconds: float = 0.0

    def add(self, step: int, metrics: dict[str, np.ndarray], states: TrainState) -> None:
        """Take in a point."""
        self.points.append(metrics)
        self.at.append(step)
        self.states = states

    def curve(self, name: str) -> np.ndarray:
        """A metric at all points, `(points, starts, ...)`."""
        return np.stack([point[name] for point in self.points[: len(self.at)]])

    def last(self, name: str) -> np.ndarray:
        """A test metric at the last point, `(starts, ...)`."""
        return self.points[len(self.at) - 1][name]

    def late(self, name: str) -> np.ndarray:
        """A mean over the batches of the last tenth of the points, `(starts, ...)`."""
        return self.curve(name)[1:][-max(1, _POINTS // 10) :].mean(axis=0)


class Start(NamedTuple):
    """Starting points, stacked: the same for every method."""

    models: Any
    keys: jax.Array


class CompiledStarts(NamedTuple):
    """A method on a task, ready to run."""

    states: TrainState
    """Of all starts, before the first step."""
    run: Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]
    """So many steps of all starts, and an evaluation."""
    compile_seconds: float


def starting_points(task: Task, seed: int, starts: int) -> Start:
    """`starts` models with the keys of their batches and draws; the first ones do not depend on how many there are."""
    numbers = jnp.arange(starts)
    for_models, for_steps = jax.random.split(jax.random.key(seed))

    def one(number: jax.Array) -> Start:
        return Start(task.model(jax.random.fold_in(for_models, number)), jax.random.fold_in(for_steps, number))

    return jax.jit(jax.vmap(one)).lower(numbers).compile(COMPILER)(numbers)


def compile_starts(task: Task, method: Method, start: Start) -> CompiledStarts:
    """Compile the training of all starts at once; it may run in a thread of its own."""
    began = time.perf_counter()
    states = jax.vmap(lambda model, key: first_state(task, method, model, key))(*start)
    over_starts = jax.vmap(lambda state, n: advance_and_evaluate(task, method, state, n), (0, None))
    run = jax.jit(over_starts).lower(states, jnp.int32(0)).compile(COMPILER)
    return CompiledStarts(states, run, time.perf_counter() - began)


def train_starts(program: CompiledStarts, outcome: Outcome, steps: int) -> None:
    """Train all starts, and fill in `outcome` point by point: after Ctrl-C it holds what was reached."""
    began = time.perf_counter()
    states = program.states
    outcome.compile_seconds = program.compile_seconds
    boundaries = sorted({round(steps * i / _POINTS) for i in range(_POINTS + 1)})
    with tqdm(total=steps, desc=f"{outcome.data} {outcome.router}", unit="step", disable=None, leave=False) as bar:
        for here, there in zip([0, *boundaries], boundaries, strict=False):
            states, metrics = program.run(states, jnp.int32(there - here))
            outcome.add(there, jax.tree.map(np.asarray, metrics), states)
            bar.update(there - here)
            shown = "true_loss" if "true_loss" in metrics else "loss"
            bar.set_postfix({shown: f"{np.median(outcome.last(shown)):.4g}"})
    outcome.run_seconds = time.perf_counter() - began
    outcome.finished = True
