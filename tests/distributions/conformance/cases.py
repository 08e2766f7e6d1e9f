"""The grid of the conformance tests: all distributions, every batch shape, number of experts and kind of capacity.

Compiling is what takes time, and it depends on the batch shape and the number of experts alone: a capacity is data. So
all files share one batch of problems, and run GumbelMatching on a cover of the grid; the marker `slow` has it all.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment

CLASSES = [SkipAssignment, GumbelMatching]  # what has logits
ALL_CLASSES = [*CLASSES, UniformAssignment]
BOTH = pytest.mark.parametrize("cls", CLASSES)
ALL = pytest.mark.parametrize("cls", ALL_CLASSES)
# Where another compilation of GumbelMatching.log_prob would show what others show already.
ONE_SLOW = [SkipAssignment, pytest.param(GumbelMatching, marks=pytest.mark.slow, id="GumbelMatching")]
BOTH_ONE_SLOW = pytest.mark.parametrize("cls", ONE_SLOW)
ALL_ONE_SLOW = pytest.mark.parametrize("cls", [*ONE_SLOW, UniformAssignment])
BATCH_SHAPES = [(), (3,), (2, 3)]
NUM_EXPERTS = [1, 2, 3, 5]
CAPACITIES = ["int", "int with free places", "vector", "vector with free places"]
GRID = list(itertools.product(BATCH_SHAPES, NUM_EXPERTS, CAPACITIES))
# Every two of batch shape, number of experts and kind of capacity together; `slow` has the rest of the grid.
PAIRWISE = [
    (BATCH_SHAPES[(row + column) % len(BATCH_SHAPES)], k, kind)
    for (row, k), (column, kind) in itertools.product(enumerate(NUM_EXPERTS), enumerate(CAPACITIES))
]
EACH = [case if case in PAIRWISE else pytest.param(*case, marks=pytest.mark.slow) for case in GRID]
# Every number of experts and every batch shape with every kind of capacity, at four compilations.
COVER = [
    (batch_shape, k, capacity)
    for k, batch_shape in zip(NUM_EXPERTS, [(2, 3), (3,), (), ()], strict=True)
    for capacity in CAPACITIES
]

KEY = jax.random.key(1)
LOGITS = np.asarray(jax.random.normal(jax.random.key(0), (3, 4, 2)))  # shared: a batch of 3, n = 4, k = 2
VALUE = np.array([[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]], np.int32)  # inside both supports at capacity 2


def num_datapoints(k):
    """So many that a capacity of 2 has no free place."""
    return 2 * k


def capacity_of(kind, k):
    """The capacity by its name in `CAPACITIES`."""
    free = kind.endswith("free places")
    if kind.startswith("int"):
        return 3 if free else 2
    uneven = {1: [2], 2: [3, 1], 3: [3, 2, 1], 5: [3, 3, 2, 1, 1]}[k]
    return np.array([*uneven[:-1], uneven[-1] + free])


def made(cls, logits, capacity, **options):
    """The distribution of a class for such logits; of one without logits, as many problems of that size."""
    if cls is not UniformAssignment:
        return cls(logits, capacity, **options)
    *batch_shape, n, k = np.shape(logits)
    stack = jnp if isinstance(capacity, jax.Array) else np
    return cls(n, stack.broadcast_to(stack.asarray(capacity), (*batch_shape, k)), **options)


def problem(cls, batch_shape, k, kind):
    """The distribution of one point of the grid."""
    logits = np.random.default_rng(k).normal(size=(*batch_shape, num_datapoints(k), k))
    return made(cls, logits.astype(np.float32), capacity_of(kind, k))


def shared(cls, capacity=2, **options):
    """The distribution whose compiled functions all files share."""
    return made(cls, jnp.asarray(LOGITS), capacity, **options)
