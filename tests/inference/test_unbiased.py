"""The gradient that trains a model, averaged over draws, against the enumerated gradient: what everything is for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gumbel_moe.estimators import RunningMeanState, exact_loss
from inference.training.methods import METHODS
from models.data import bent_line
from models.toy import ToyMixture

DRAWS = 20_000
CHECKS = 7  # six parameters and the value of the loss
FALSE_FAIL = 1e-6  # of each test here, by Bonferroni over the checks; the means of so many draws are normal
LIMIT = norm.isf(FALSE_FAIL / (2 * CHECKS))
X = jnp.linspace(0.05, 0.95, 6)[:, None]
Y = bent_line(X)
BASELINE = RunningMeanState(jnp.array(0.3), jnp.array(0.6))  # a running mean of 0.5
MODEL = jax.tree.unflatten(
    jax.tree.structure(ToyMixture(jax.random.key(0))),
    [jnp.array([0.5, -1.5]), jnp.array([0.1, 1.8]), jnp.array([1.0, 0.6])],
)


@functools.cache
def z_scores(name: str) -> np.ndarray:
    """Of the mean over draws against the enumerated value and gradient, `(7,)`."""
    method = METHODS[name]
    state = method.init_state(MODEL) if name.endswith(("_student", "_two_draws")) else BASELINE

    def one(key):
        value, gradient = jax.jit(jax.value_and_grad(lambda m: method.loss(key, m, X, Y, state, 3)[0]))(MODEL)
        return jnp.concatenate([value[None], *jax.tree.leaves(gradient)])

    estimates = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), DRAWS)), np.float64)
    value, gradient = jax.jit(jax.value_and_grad(lambda m: exact_loss(m.logits(X), m.all_losses(X, Y))))(MODEL)
    exact = np.concatenate([np.asarray(value)[None], *map(np.asarray, jax.tree.leaves(gradient))])
    assert estimates.shape == (DRAWS, CHECKS)
    return (estimates.mean(axis=0) - exact) / (estimates.std(axis=0, ddof=1) / np.sqrt(DRAWS))


def test_the_router_is_far_from_balance():
    """Else the capacities would not bind, and nothing could go wrong."""
    share = jax.nn.softmax(MODEL.logits(X), axis=1).mean(axis=0)
    assert share.max() > 0.6


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("independent", "skip", "gumbel_matching")),
        pytest.param("gumbel_matching_floored", marks=pytest.mark.slow),
        "gumbel_matching_floored_student",
        "skip_floored_student",
        pytest.param("skip_student", marks=pytest.mark.slow),
        "skip_two_draws",
    ],
)
def test_weighted_draws_are_unbiased(name):
    assert np.abs(z_scores(name)).max() < LIMIT


@pytest.mark.parametrize("name", ["skip_uncorrected", "gumbel_matching_uncorrected"])
def test_without_weights_the_same_test_fails(name):
    assert np.abs(z_scores(name)).max() > 3 * LIMIT
