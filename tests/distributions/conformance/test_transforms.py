"""`jit`, `vmap` and `scan` over constructors and methods."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions.batch_util import vmap_over
from numpyro.handlers import seed, trace

from gumbel_moe.distributions import GumbelMatching
from tests.distributions.conformance.cases import ALL, BOTH, CLASSES, KEY, LOGITS, VALUE, made, shared

CAPACITIES = np.array([2, 3, 4], np.int32)
KEYS = jax.random.split(KEY, 3)


def one(cls, logits, capacity):
    return made(cls, jnp.asarray(logits), capacity, validate_args=False)


AXES = {"logits": (0, None), "capacity": (None, 0), "both": (0, 0)}


# Each of the three compiles log_prob anew; over logits or capacities alone, others map that of GumbelMatching.
@pytest.mark.parametrize(
    ("cls", "axes"),
    [
        pytest.param(
            cls,
            axes,
            id=f"{name}-{cls.__name__}",
            marks=pytest.mark.slow if cls is GumbelMatching and name != "both" else [],
        )
        for cls in CLASSES
        for name, axes in AXES.items()
    ],
)
def test_vmap(cls, axes):
    """Distributions made by a mapped constructor, then mapped methods, against one at a time."""
    arguments = LOGITS if axes[0] == 0 else LOGITS[0], CAPACITIES if axes[1] == 0 else 2
    each = [one(cls, LOGITS[i if axes[0] == 0 else 0], int(CAPACITIES[i]) if axes[1] == 0 else 2) for i in range(3)]
    where = vmap_over(each[0], logits=axes[0], capacity=axes[1])
    made = jax.vmap(lambda a, c: one(cls, a, c), in_axes=axes, out_axes=where)(*arguments)
    assert (made.batch_shape, made.event_shape) == ((), (4,))
    assert made.logits.shape == ((3, 4, 2) if axes[0] == 0 else (4, 2))
    assert made.capacity.shape == ((3, 2) if axes[1] == 0 else (2,))

    def methods(d, key, value):
        return d.sample(key), d.log_prob(value), d.support(value)

    sample, log_prob, inside = jax.vmap(methods, in_axes=(where, 0, 0))(made, KEYS, VALUE)
    for i, d in enumerate(each):
        np.testing.assert_array_equal(sample[i], d.sample(KEYS[i]))
        batch = one(cls, np.stack([d.logits] * 3), d.capacity)  # of a shape that is compiled already
        np.testing.assert_allclose(log_prob[i], batch.log_prob(VALUE)[i], rtol=1e-5)
        assert inside[i] == d.support(VALUE[i])


@BOTH
def test_vmap_of_the_constructor_alone(cls):
    """All attributes mapped, another axis, vector capacities, and both at once."""
    assert jax.vmap(lambda a: one(cls, a, 2))(LOGITS).capacity.shape == (3, 2)
    moved = np.moveaxis(LOGITS, 0, 1)
    made = jax.vmap(lambda a: one(cls, a, 2), in_axes=1, out_axes=vmap_over(one(cls, LOGITS[0], 2), logits=1))(moved)
    np.testing.assert_array_equal(made.logits, moved)
    made = jax.vmap(lambda c: one(cls, LOGITS[0], c))(np.array([[2, 3], [4, 1]]))
    assert made.capacity.tolist() == [[2, 3], [4, 1]]
    twice = jax.vmap(lambda c: jax.vmap(lambda a: one(cls, a, c))(LOGITS))(CAPACITIES)
    assert (twice.logits.shape, twice.capacity.shape, twice.batch_shape) == ((3, 3, 4, 2), (3, 3, 2), ())


@ALL
def test_vmap_of_capacities_that_are_traced_outside(cls):
    sizes = jax.jit(lambda c: jax.vmap(lambda c: one(cls, LOGITS[0], c).sample(KEY))(c))(CAPACITIES)
    for capacity, value in zip(CAPACITIES, sizes, strict=True):
        np.testing.assert_array_equal(value, one(cls, LOGITS[0], int(capacity)).sample(KEY))


@BOTH
def test_jit(cls):
    d = shared(cls)
    traced = jax.jit(lambda a, c: cls(a, c).sample(KEY))(d.logits, 2)
    fixed, inside = jax.jit(lambda a, c, v: (cls(a, c).sample(KEY), cls(a, c).support(v)), static_argnums=1)(
        d.logits, (2, 2), VALUE
    )
    np.testing.assert_array_equal(traced, d.sample(KEY))
    np.testing.assert_array_equal(fixed, d.sample(KEY))
    np.testing.assert_array_equal(inside, d.support(VALUE))


@ALL
def test_scan_over_stacked_distributions(cls):
    stacked = jax.vmap(lambda a: one(cls, a, 2))(LOGITS)

    def step(total, item):
        d, key = item
        value = d.sample(key)
        return total + value.sum(), value

    total, values = jax.lax.scan(step, jnp.int32(0), (stacked, KEYS))
    for i in range(3):
        np.testing.assert_array_equal(values[i], one(cls, LOGITS[i], 2).sample(KEYS[i]))
    assert total == values.sum()


@BOTH
def test_scan_with_a_distribution_carried_and_closed_over(cls):
    closed = shared(cls)

    def step(d, key):
        other = cls(d.logits + 1, d.capacity)  # made anew: the structures must agree
        return other, (d.sample(key), closed.sample(key))

    last, (carried, fixed) = jax.lax.scan(step, shared(cls), KEYS)
    np.testing.assert_allclose(last.logits, LOGITS + 3, rtol=1e-6)
    assert last.capacity.tolist() == [[2, 2]]
    np.testing.assert_array_equal(carried[0], fixed[0])
    for key, value in zip(KEYS, fixed, strict=True):
        np.testing.assert_array_equal(value, closed.sample(key))


@ALL
def test_scan_of_a_model(cls):
    """NumPyro's own `scan`, each step's logits moved by the previous assignment."""

    def step(load, _):
        value = numpyro.sample("z", one(cls, LOGITS[0] - load, 2))
        return jnp.bincount(jnp.clip(value, 0, 1), length=2).astype(jnp.float32), value

    sites = trace(seed(lambda: scan(step, jnp.zeros(2), None, length=3), KEY)).get_trace()
    assert sites["z"]["value"].shape == (3, 4)
    assert one(cls, LOGITS[0], 2).support(sites["z"]["value"]).all()
