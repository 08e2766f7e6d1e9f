"""Pytrees: unflattening bypasses `__init__`, and nothing may get lost; pickles and copies likewise."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from gumbel_moe.distributions import GumbelMatching
from tests.distributions.conformance.cases import (
    ALL,
    ALL_CLASSES,
    BOTH,
    CLASSES,
    EACH,
    KEY,
    LOGITS,
    VALUE,
    problem,
    shared,
)

WRAPPERS = {
    "plain": lambda d: d,
    "expanded": lambda d: d.expand((5, 3)),
    "independent": lambda d: d.to_event(1),
    "masked by False": lambda d: d.mask(False),
    "masked by an array": lambda d: d.mask(jnp.array([True, False, True])),
    "all": lambda d: d.expand((5, 3)).to_event(1).mask(jnp.arange(5) > 1),
}


def assert_same(actual, expected):
    """The same distribution: equal structure, shapes and arguments; and equal draws."""
    assert type(actual) is type(expected)
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert (actual.batch_shape, actual.event_shape) == (expected.batch_shape, expected.event_shape)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
    if actual.batch_shape == (3,):  # a draw of the shape that is compiled already
        np.testing.assert_array_equal(actual.sample(KEY), expected.sample(KEY))


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize(("batch_shape", "k", "kind"), EACH)
def test_round_trip_on_the_grid(cls, batch_shape, k, kind):
    d = problem(cls, batch_shape, k, kind)
    leaves, structure = jax.tree.flatten(d)
    again = jax.tree.unflatten(structure, leaves)
    assert structure == jax.tree.structure(problem(cls, batch_shape, k, kind)) == jax.tree.structure(again)
    assert (again.batch_shape, again.event_shape, again.num_experts) == (d.batch_shape, d.event_shape, k)
    assert all(getattr(again, name) is getattr(d, name) for name in cls.gather_pytree_data_fields())
    assert vars(again).keys() >= vars(d).keys()


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_round_trips(cls, wrap):
    d = wrap(shared(cls))
    d.sample(KEY)  # use leaves nothing behind
    assert_same(jax.tree.unflatten(*reversed(jax.tree.flatten(d))), d)
    assert_same(type(d).tree_unflatten(*reversed(d.tree_flatten())), d)
    assert_same(jax.tree.map(lambda x: x, d), d)
    assert_same(jax.jit(lambda: wrap(shared(cls)))(), d)
    assert_same(jax.jit(lambda x: x)(d), d)
    assert_same(pickle.loads(pickle.dumps(d)), d)
    assert_same(copy.deepcopy(d), d)
    assert_same(copy.copy(d), d)
    stacked = jax.lax.map(lambda _: wrap(shared(cls)), np.ones(2))
    assert_same(jax.tree.map(lambda x: x[1], stacked), d)


def test_options_survive():
    d = shared(GumbelMatching, num_draws=64, target_error=0.1, method="sampling", validate_args=True)
    for again in (
        jax.tree.map(lambda x: x, d),
        jax.jit(lambda x: x)(d),
        pickle.loads(pickle.dumps(d)),
        d.expand((5, 3)).base_dist,
        jax.jit(lambda x: x)(d.to_event(1)).base_dist,
    ):
        assert (again.num_draws, again.target_error, again.method, again._validate_args) == (64, 0.1, "sampling", True)
    other = shared(GumbelMatching, num_draws=32, target_error=0.1, validate_args=True)
    assert jax.tree.structure(other) != jax.tree.structure(d)


def test_structures_tell_distributions_apart():
    structures = [jax.tree.structure(wrap(shared(cls))) for cls in ALL_CLASSES for wrap in WRAPPERS.values()]
    assert all(a != b for i, a in enumerate(structures) for b in structures[:i])
    assert jax.tree.structure(shared(GumbelMatching, (3, 1))) == jax.tree.structure(shared(GumbelMatching))


@BOTH
def test_leaves(cls):
    d = shared(cls)
    assert len(jax.tree.leaves(d)) == 2
    shifted = jax.tree.map(lambda x: x + 1, d)
    np.testing.assert_array_equal(shifted.logits, LOGITS + 1)
    assert shifted.capacity.tolist() == [[3, 3]]  # as many axes as the logits' batch
    for placeholder in (None, object(), "leaf"):  # as JAX's own transformations put in
        jax.tree.map(lambda _, x=placeholder: x, d)
    abstract = jax.eval_shape(lambda: d)
    assert (abstract.logits.shape, abstract.batch_shape) == ((3, 4, 2), (3,))
    pair = jax.tree.map(lambda *x: jnp.stack(x), d, shifted)
    assert pair.logits.shape == (2, 3, 4, 2)


@BOTH
def test_expanding_keeps_the_small_arrays(cls):
    for made in (shared(cls).expand((10, 3)), jax.jit(lambda: shared(cls).expand((10, 3)))()):
        assert isinstance(made, dist.ExpandedDistribution)
        assert (made.batch_shape, made.base_dist.batch_shape) == ((10, 3), (3,))
        assert made.base_dist.logits.shape == (3, 4, 2)


@ALL
def test_as_an_argument_and_as_a_gradient(cls):
    """One compilation serves every capacity; the gradient is a distribution as well."""
    d, uneven = shared(cls), shared(cls, (4, 2))
    traces = []

    @jax.jit
    def draw(d):
        traces.append(1)
        return d.sample(KEY)

    np.testing.assert_array_equal(draw(d), d.sample(KEY))
    np.testing.assert_array_equal(draw(uneven), uneven.sample(KEY))
    assert len(traces) == 1
    shapes = jax.eval_shape(jax.grad(lambda d: d.log_prob(VALUE).sum(), allow_int=True), d)
    assert isinstance(shapes, cls)
    assert cls not in CLASSES or shapes.logits.shape == (3, 4, 2)
