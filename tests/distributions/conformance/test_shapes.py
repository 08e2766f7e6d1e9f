"""Shapes and dtypes on the whole grid, without compiling: `jax.eval_shape` traces the very code that runs.

Tracing takes a second too, per shape and not per capacity, so that all tests here look at the same four draws.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment
from tests.distributions.conformance.cases import (
    ALL,
    BATCH_SHAPES,
    BOTH,
    EACH,
    GRID,
    NUM_EXPERTS,
    PAIRWISE,
    capacity_of,
    made,
    num_datapoints,
)

DRAWS = 4


def traced(cls, batch_shape, k, kind, method):
    """Shapes of `method(distribution)` for a distribution of traced logits."""
    logits = jax.ShapeDtypeStruct((*batch_shape, num_datapoints(k), k), jnp.result_type(float))
    capacity = capacity_of(kind, k)
    return jax.eval_shape(lambda a: method(made(cls, a, capacity)), logits)


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize(("batch_shape", "k", "kind"), EACH)
def test_plain(cls, batch_shape, k, kind):
    def method(d):
        value = d.sample(jax.random.key(0), (DRAWS,))
        return value, d.log_prob(value), d.support(value)

    value, log_prob, inside = traced(cls, batch_shape, k, kind, method)
    assert (value.shape, value.dtype) == ((DRAWS, *batch_shape, num_datapoints(k)), jnp.int32)
    assert (log_prob.shape, log_prob.dtype) == ((DRAWS, *batch_shape), jnp.float32)
    assert (inside.shape, inside.dtype) == ((DRAWS, *batch_shape), bool)


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize(("batch_shape", "k", "kind"), EACH)
def test_expand_and_mask(cls, batch_shape, k, kind):
    def method(d):
        by, to, masked = d.expand_by((DRAWS,)), d.expand([DRAWS, *batch_shape]), d.mask(jnp.zeros(batch_shape, bool))
        for layer, shape in [(by, (DRAWS, *batch_shape)), (to, (DRAWS, *batch_shape)), (masked, batch_shape)]:
            assert (layer.batch_shape, layer.event_shape) == (shape, d.event_shape)
            assert (layer.is_discrete, layer.has_rsample, layer.has_enumerate_support) == (True, False, False)
        value = by.sample(jax.random.key(0))
        return [value, by.log_prob(value), to.log_prob(value), masked.log_prob(value), d.mask(False).log_prob(value)]

    value, *log_probs = traced(cls, batch_shape, k, kind, method)
    assert (value.shape, value.dtype) == ((DRAWS, *batch_shape, num_datapoints(k)), jnp.int32)
    assert [log_prob.shape for log_prob in log_probs] == 4 * [(DRAWS, *batch_shape)]


@pytest.mark.each_choice
@ALL
@pytest.mark.parametrize(("batch_shape", "k", "kind"), EACH)
def test_to_event(cls, batch_shape, k, kind):
    full = (*batch_shape, num_datapoints(k))
    for dims in range(len(batch_shape) + 1):

        def method(d, dims=dims):
            for layer in (d.to_event(dims), dist.Independent(d, dims)):
                assert (layer.batch_shape, layer.event_shape) == (full[: -dims - 1], full[-dims - 1 :])
                assert layer.support.event_dim == layer.event_dim == dims + 1
                assert (layer.is_discrete, layer.has_rsample, layer.has_enumerate_support) == (True, False, False)
            value = layer.sample(jax.random.key(0), (DRAWS,))
            return value, layer.log_prob(value), layer.support(value)

        value, log_prob, inside = traced(cls, batch_shape, k, kind, method)
        assert value.shape == (DRAWS, *full)
        assert log_prob.shape == inside.shape == (DRAWS, *full[: -dims - 1])


@pytest.mark.each_choice
@BOTH
@pytest.mark.parametrize("k", NUM_EXPERTS)
@pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
def test_infer_shapes(cls, batch_shape, k):
    logits = (*batch_shape, num_datapoints(k), k)
    expected = batch_shape, (num_datapoints(k),)
    assert cls.infer_shapes(logits, ()) == expected
    assert cls.infer_shapes(logits=logits, capacity=(k,)) == expected
    d = cls(jnp.zeros(logits), 2)
    assert (d.batch_shape, d.event_shape) == expected
    assert d.shape((7, 1)) == (7, 1, *batch_shape, num_datapoints(k))
    assert f"batch shape {batch_shape} and event shape ({num_datapoints(k)},)" in repr(d)


@pytest.mark.each_choice
@pytest.mark.parametrize(
    ("cls", "batch_shape", "k", "kind"),
    [
        pytest.param(cls, *case, marks=() if case in PAIRWISE else pytest.mark.slow)
        for cls in (SkipAssignment, UniformAssignment)
        for case in GRID
    ]
    + [(GumbelMatching, (3,), 2, "int"), (GumbelMatching, (), 1, "vector")],
)
def test_float64(cls, batch_shape, k, kind):
    with jax.enable_x64(True):
        value, log_prob = traced(
            cls, batch_shape, k, kind, lambda d: (d.sample(jax.random.key(0)), d.log_prob(d.sample(jax.random.key(0))))
        )
    assert (value.dtype, log_prob.dtype) == (jnp.int32, jnp.float64)


@ALL
def test_nothing_to_assign(cls):
    """No datapoints, an empty batch, no draws."""
    empty = made(cls, jnp.zeros((0, 2)), 1)
    assert empty.sample(jax.random.key(0)).shape == (0,)
    assert empty.log_prob(jnp.zeros(0, jnp.int32)) == 0
    for shape in [(0,), (3, 0, 2)]:
        batch = made(cls, jnp.zeros((*shape, 4, 2)), 2)
        assert batch.sample(jax.random.key(0)).shape == (*shape, 4)
        assert batch.log_prob(jnp.zeros((*shape, 4), jnp.int32)).shape == shape
    assert made(cls, jnp.zeros((4, 2)), 2).sample(jax.random.key(0), (0,)).shape == (0, 4)
