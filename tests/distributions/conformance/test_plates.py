"""Plates: over the batch, over an expanded site, subsampled, nested."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from tests.distributions.conformance.cases import ALL, ALL_ONE_SLOW, BOTH, KEY, LOGITS, VALUE, made, shared


def draw(program):
    return handlers.trace(handlers.seed(program, KEY)).get_trace()["z"]


@ALL
def test_plate_expands_a_single_distribution(cls):
    def program():
        with numpyro.plate("batch", 3):
            numpyro.sample("z", made(cls, LOGITS[0], 2))

    site = draw(program)
    assert (site["fn"].batch_shape, site["value"].shape) == ((3,), (3, 4))
    assert jax.eval_shape(lambda: log_density(program, (), {}, {"z": VALUE})[0]).shape == ()


@ALL_ONE_SLOW
def test_density_of_an_expanded_distribution(cls):
    def program():
        with numpyro.plate("batch", 3):
            numpyro.sample("z", made(cls, LOGITS[0], 2))

    expected = made(cls, np.stack([LOGITS[0]] * 3), 2).log_prob(VALUE).sum()
    np.testing.assert_allclose(log_density(program, (), {}, {"z": VALUE})[0], expected, rtol=1e-5)


@ALL
def test_plate_of_another_size_is_refused(cls):
    def program():
        with numpyro.plate("batch", 4):
            numpyro.sample("z", shared(cls))

    with pytest.raises(ValueError, match="broadcast"):
        draw(program)


@BOTH
def test_subsampling(cls):
    """Three of six rows at a time count twice."""
    logits = np.concatenate([LOGITS, LOGITS + 1, -LOGITS])

    def program():
        with numpyro.plate("batch", 9, subsample_size=3) as rows:
            numpyro.sample("z", cls(jnp.asarray(logits)[rows], 2))

    sites = handlers.trace(handlers.seed(program, KEY)).get_trace()
    rows = np.asarray(sites["batch"]["value"])
    assert (sites["z"]["value"].shape, sites["z"]["scale"]) == ((3, 4), 3)
    np.testing.assert_array_equal(sites["z"]["fn"].logits, logits[rows])
    density = log_density(handlers.seed(program, KEY), (), {}, {"z": VALUE})[0]
    np.testing.assert_allclose(density, 3 * cls(logits[rows], 2).log_prob(VALUE).sum(), rtol=1e-5)


@ALL
def test_nested_plates(cls):
    def program():
        with numpyro.plate("outer", 2, dim=-2), numpyro.plate("inner", 3, dim=-1):
            numpyro.sample("z", shared(cls))

    site = draw(program)
    assert (site["fn"].batch_shape, site["value"].shape) == ((2, 3), (2, 3, 4))
    assert not jnp.array_equal(site["value"][0], site["value"][1])
    value = jnp.stack([jnp.asarray(VALUE)] * 2)
    expected = 2 * shared(cls).log_prob(VALUE).sum()
    np.testing.assert_allclose(log_density(program, (), {}, {"z": value})[0], expected, rtol=1e-5)


@ALL
def test_plate_over_an_event(cls):
    """A batch that is declared an event needs no plate, and one around it multiplies."""

    def program():
        with numpyro.plate("outer", 2):
            numpyro.sample("z", shared(cls).to_event(1))

    site = draw(program)
    assert (site["fn"].batch_shape, site["fn"].event_shape, site["value"].shape) == ((2,), (3, 4), (2, 3, 4))
    assert jax.eval_shape(lambda: log_density(program, (), {}, {"z": site["value"]})[0]).shape == ()
