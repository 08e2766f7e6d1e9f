"""The problems that the programs train on: a model, its data, and settings that suit them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
from jax import Array

from models import Mixture, digits, toy


@dataclass(frozen=True)
class Task:
    """One problem; its arrays are constants of the programs compiled from it."""

    name: str
    init: Callable[[Array], Mixture]
    """A model at its starting point, from a key."""
    batch: Callable[[Array], tuple[Array, Array]]
    """A training batch `(x, y)`, from a key."""
    test: tuple[Array, Array]
    batch_size: int
    capacity: int
    """Places of an expert in a training batch; together they just hold it."""
    learning_rate: float
    """Of Adam."""
    starts: int
    steps: int
    solved_below: float | None = None
    """A start is solved when its loss at test is below this; None where the question is not asked."""
    classifies: bool = False

    @property
    def num_experts(self) -> int:
        """`k`."""
        return self.batch_size // self.capacity

    @property
    def test_capacity(self) -> int:
        """Places of an expert when the whole test set is one batch, for routers that need to know."""
        return -(-self.capacity * self.test[0].shape[0] // self.batch_size)


def toy_task(seed: int) -> Task:
    """The bent line: fresh batches of 100, tested on a fine grid; `seed` has no part in it."""
    return Task(
        name="toy",
        init=toy.ToyMixture,
        batch=lambda key: toy.sample_batch(key, 100),
        test=toy.grid(),
        batch_size=100,
        capacity=50,
        learning_rate=0.1,
        starts=10,
        steps=10_000,
        solved_below=0.01,
    )


def digits_task(seed: int) -> Task:
    """Handwritten digits, split by `seed`; batches of 256 drawn from the training part with replacement."""
    split = digits.load_split(seed)

    def batch(key: Array) -> tuple[Array, Array]:
        chosen = jax.random.randint(key, (256,), 0, split.train_x.shape[0])
        return split.train_x[chosen], split.train_y[chosen]

    return Task(
        name="digits",
        init=digits.DigitsMixture,
        batch=batch,
        test=(split.test_x, split.test_y),
        batch_size=256,
        capacity=32,
        learning_rate=3e-3,
        starts=10,
        steps=1000,
        classifies=True,
    )


def single_network(task: Task) -> Task:
    """The digits with one network of an expert's size, trained alone: what the mixtures have to beat."""
    return replace(task, init=lambda key: digits.DigitsMixture(key, num_experts=1), capacity=task.batch_size)


TASKS: dict[str, Callable[[int], Task]] = {"toy": toy_task, "digits": digits_task}
"""From the name of the data to a function of the seed."""
