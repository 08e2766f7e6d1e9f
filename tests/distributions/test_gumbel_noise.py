"""The noise of Gumbel-Matching: standard Gumbel, every number independent of the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from gumbel_moe.distributions._gumbel_noise import _gumbel, _threefry, gumbel_noise
from tests.randomness import FALSE_FAIL_RATE, z_limit

ROWS, COLUMNS = 2**14, 32


@pytest.fixture(scope="module")
def noise():
    return np.asarray(gumbel_noise(jax.random.key(3), (ROWS, COLUMNS), jnp.float32), np.float64)


@pytest.mark.slow
def test_it_is_standard_gumbel(noise):
    """Kolmogorov and Smirnov's test on 524,288 numbers; a scale that is 2% off must be rejected."""
    assert stats.kstest(noise.ravel(), "gumbel_r").pvalue > FALSE_FAIL_RATE
    assert stats.kstest(1.02 * noise.ravel(), "gumbel_r").pvalue < FALSE_FAIL_RATE


def test_the_two_words_of_a_block_and_neighbours_are_uncorrelated(noise):
    """z-scores of the correlations, Bonferroni; halves that share one number in ten must be rejected."""

    def passes(pairs):
        scores = [np.sqrt(a.size) * np.corrcoef(stats.norm.ppf(a), stats.norm.ppf(b))[0, 1] for a, b in pairs]
        return np.abs(scores).max() < z_limit(len(scores))

    uniform = stats.gumbel_r.cdf(noise)
    first, second = (half.ravel() for half in np.split(uniform, 2))
    across, along = (uniform[:, :-1].ravel(), uniform[:, 1:].ravel()), (uniform[:-1].ravel(), uniform[1:].ravel())
    assert passes([(first, second), across, along])
    shared = np.where(np.random.default_rng(0).uniform(size=first.size) < 0.1, first, second)
    assert not passes([(first, shared), across, along])


def test_the_hash_is_that_of_jax():
    words = jax.random.bits(jax.random.key(1), (2, 300), jnp.uint32)
    for seed in range(5):
        key = jax.random.bits(jax.random.key(seed), (2,), jnp.uint32)
        np.testing.assert_array_equal(jnp.concatenate(_threefry(key, *words)), threefry_2x32(key, words.ravel()))


def test_no_bits_make_it_infinite():
    extremes = _gumbel(jnp.array([0, 2**32 - 1, 2**31], jnp.uint32))
    np.testing.assert_allclose(extremes, stats.gumbel_r.ppf([2.0**-24, 1 - 2.0**-24, 0.5 + 2.0**-24]), rtol=1e-6)


@pytest.mark.parametrize(
    "shape",
    [(5, 3), (0, 3), (2, 3, 5), *(pytest.param(shape, marks=pytest.mark.slow) for shape in [(4, 3), (1, 1), (7,)])],
    ids=str,
)
def test_shapes_jit_and_vmap(shape):
    """The same bits in every way, and no number twice (by chance at one of 2,000 seeds for the largest shape)."""
    keys = jax.random.split(jax.random.key(0), 3)
    one_by_one = np.stack([gumbel_noise(key, shape, jnp.float32) for key in keys])
    assert one_by_one.shape == (3, *shape)
    assert np.unique(one_by_one).size == one_by_one.size
    for transformed in (jax.vmap, lambda f: jax.jit(jax.vmap(f))):
        np.testing.assert_array_equal(transformed(lambda key: gumbel_noise(key, shape, jnp.float32))(keys), one_by_one)


def test_old_style_keys_draw_the_same():
    old = gumbel_noise(jax.random.PRNGKey(5), (4, 3), jnp.float32)
    np.testing.assert_array_equal(old, gumbel_noise(jax.random.key(5), (4, 3), jnp.float32))


@pytest.mark.parametrize(("impl", "dtype"), [("rbg", "float32"), ("threefry2x32", "float64")])
def test_other_generators_and_types_are_left_to_jax(impl, dtype):
    with jax.enable_x64(True):
        key = jax.random.key(0, impl=impl)
        ours = gumbel_noise(key, (4, 3), dtype)
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, jax.random.gumbel(key, (4, 3), dtype))
