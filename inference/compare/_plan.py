"""What a comparison is about to do: its settings beside those of the README's table, and how long it will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from inference.training.tasks import Task


@dataclass(frozen=True)
class Part:
    """All methods on one problem."""

    task: Task
    methods: int
    """How many programs are compiled and trained, references among them."""
    starts: int
    steps: int

    @property
    def seconds(self) -> float:
        """Of one method, on two cores as the README's table was made on, while nobody else computes there."""
        return self.task.compile_seconds + self.starts * self.steps / 1000 * self.task.seconds

    def __str__(self) -> str:
        said = f"{self.task.name}: {self.methods} methods, {self.starts:,} starts of {self.steps:,} steps"
        published = self.task.published
        if published is None or published == (self.starts, self.steps):
            return said
        starts, steps = published
        there = f"--data {self.task.name} --starts {starts} --steps {steps}"
        return f"{said} (README's table: {starts:,} starts of {steps:,} steps, {there})"


@dataclass
class Plan:
    """What is to come, and what is left: the estimate follows what the methods took so far."""

    parts: Sequence[Part]
    done: float = 0.0
    """Of the seconds expected."""
    began: float = field(default_factory=time.perf_counter)

    @property
    def expected(self) -> float:
        """Seconds of everything, as if nothing had been seen."""
        return sum(part.methods * part.seconds for part in self.parts)

    def finished(self, part: Part) -> str:
        """One more method of `part` is done; how long the others will take, or nothing if there are none."""
        self.done += part.seconds
        left = self.expected - self.done
        if left < 1e-9 * self.expected:
            return ""
        return f"; about {duration(left * (time.perf_counter() - self.began) / self.done)} left"

    def __str__(self) -> str:
        lines = [str(part) for part in self.parts]
        return "\n".join([*lines, f"about {duration(self.expected)} on two cores; what has finished is kept on Ctrl-C"])


def duration(seconds: float) -> str:
    """In words, as exact as an estimate is."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    minutes = round(seconds / 60)
    if minutes < 100:
        return "a minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"
