"""The problems that the programs train on: data, a model, its optimiser and evaluation, and settings that suit them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import optax
from jax import Array

from inference.training.evaluation import Evaluation, classifier_metrics, mixture_metrics, training_metrics
from inference.training.methods import ESTIMATOR_METHODS, ROUTER_METHODS, Method
from models.data import bent_line_grid, load_digits_split, make_regions, sample_bent_line
from models.digits import DigitsMixture
from models.regions import RegionsMixture
from models.toy import ToyMixture


@dataclass(frozen=True)
class Data:
    """What to train on and to test with; arrays are constants of the programs compiled from it."""

    batch: Callable[[Array], tuple[Array, Array]]
    """A training batch `(x, y)`, from a key."""
    batch_size: int
    """Datapoints that a batch brings to a router."""
    test: tuple[Array, Array]
    train: tuple[Array, Array] | None = None
    """All that batches are drawn from, where it is finite; None where every batch is fresh."""


@dataclass(frozen=True)
class Task:
    """One problem."""

    name: str
    data: Data
    model: Callable[[Array], Any]
    """A model at its starting point, from a key. A method calls it as a `models.layers.MoELayer`; one of several layers
    returns a tuple of routings, and its `init_state` and router's state are tuples of theirs."""
    capacity: int
    """Places of an expert in a training batch; together they just hold it."""
    optimiser: optax.GradientTransformation
    evaluation: Evaluation
    starts: int
    steps: int
    methods: tuple[str, ...] = ROUTER_METHODS
    """What a comparison trains unless told otherwise."""
    on_training_data: Evaluation | None = None
    """What is measured on all of `data.train`; estimators of a gradient show there what they are worth."""
    experts_per_datapoint: int = 1
    published: tuple[int, int] | None = None
    """Starts and steps of the README's table, where it has the problem."""
    compile_seconds: float = 5.0
    """Of one method, more or less, on two cores; and"""
    seconds: float = 1.0
    """of 1,000 steps of one start."""

    @property
    def num_experts(self) -> int:
        """`k`, in every routed layer."""
        return self.data.batch_size * self.experts_per_datapoint // self.capacity

    def with_experts(self, number: int) -> "Task":
        """The problem with so many experts for every datapoint, and batches so many times smaller: as many evaluations
        of experts in a batch as before, and as many places.
        """
        size, whole = divmod(self.data.batch_size, number)
        if whole or number > self.num_experts:
            raise ValueError(
                f"must divide the batches of {self.data.batch_size} of {self.name}, and be at most its "
                f"{self.num_experts} experts, got {number}"
            )

        def batch(key: Array) -> tuple[Array, Array]:
            return jax.tree.map(lambda part: part[:size], self.data.batch(key))

        return replace(self, data=replace(self.data, batch=batch, batch_size=size), experts_per_datapoint=number)

    def capacity_among(self, n: int) -> int:
        """Places of an expert among `n` datapoints, for routers that need to know."""
        return -(-self.capacity * n // self.data.batch_size)

    def evaluate(self, method: Method, model: Any, router_state: Any) -> dict[str, Array]:
        """The metrics at test, and those on the training data."""
        metrics = self.evaluation(method, model, router_state, self.data.test, self.capacity_among)
        if self.on_training_data is None or self.data.train is None:
            return metrics
        return metrics | self.on_training_data(method, model, router_state, self.data.train, self.capacity_among)


def toy_task(seed: int) -> Task:
    """The bent line: fresh batches of 100, tested on a fine grid; `seed` has no part in it."""
    return Task(
        name="toy",
        data=Data(lambda key: sample_bent_line(key, 100), 100, bent_line_grid()),
        model=ToyMixture,
        capacity=50,
        optimiser=optax.adam(0.1),
        evaluation=Evaluation(mixture_metrics, "squared error", solved_below=0.01),
        starts=10,
        steps=10_000,
        published=(100, 10_000),
        compile_seconds=4,
        seconds=0.05,
    )


def regions_task(seed: int) -> Task:
    """Eight regions of a space of eight dimensions: fresh batches of 256; `seed` makes the teacher."""
    key = jax.random.key(seed)
    teacher, for_test = make_regions(key), jax.random.fold_in(key, 0)
    return Task(
        name="regions",
        data=Data(lambda key: teacher.sample(key, 256), 256, teacher.sample(for_test, 4096)),
        model=RegionsMixture,
        capacity=32,
        optimiser=optax.adam(1e-2),
        evaluation=Evaluation(mixture_metrics, "squared error"),
        starts=4,
        steps=1000,
        methods=ESTIMATOR_METHODS,
        compile_seconds=5,
        seconds=0.7,
    )


def digits_task(seed: int) -> Task:
    """Handwritten digits, split by `seed`; batches of 256 drawn from the training part with replacement."""
    split = load_digits_split(seed)

    def batch(key: Array) -> tuple[Array, Array]:
        chosen = jax.random.randint(key, (256,), 0, split.train_x.shape[0])
        return split.train_x[chosen], split.train_y[chosen]

    return Task(
        name="digits",
        data=Data(batch, 256, (split.test_x, split.test_y), (split.train_x, split.train_y)),
        model=DigitsMixture,
        capacity=32,
        optimiser=optax.adam(3e-3),
        evaluation=Evaluation(classifier_metrics, "nats"),
        on_training_data=Evaluation(training_metrics, "nats"),
        starts=10,
        steps=1000,
        published=(20, 3000),
        compile_seconds=6,
        seconds=0.7,
    )


TASKS: dict[str, Callable[[int], Task]] = {"toy": toy_task, "regions": regions_task, "digits": digits_task}
"""From the name of the data to a function of the seed."""
