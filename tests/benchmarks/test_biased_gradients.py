"""The methods of the literature, told apart: what is known of each from its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import biased_gradients
from benchmarks.biased_gradients_methods import METHODS

UNBIASED = {"skip, weights and score", "Gumbel-Matching, weights and score"}
EXACT_FOR_SQUARES = "SparseMixer's mid-point rule"


def test_normalised_gate_leaves_no_gradient_to_the_router():
    problem = biased_gradients.problems(0)["squared error"]
    surrogate = METHODS["top-1, normalised gate"].make(problem.params["router"], problem.loss)
    gradient = jax.jit(jax.grad(surrogate))(problem.params, jax.random.key(0))
    assert (gradient["router"] == 0).all()
    assert (gradient["experts"] != 0).any()


def test_straight_through_has_the_bias_of_its_curvature():
    """Of a quadratic loss in one output the mean is worked out: both agree where the loss is linear."""
    outputs = jnp.array([[[0.5], [-1.0], [2.0]]])
    params = {"router": jnp.array([[0.3, -0.2, 0.1]]), "experts": outputs}
    surrogate = METHODS["straight-through"].make(params["router"], lambda h: jnp.sum(h**2, axis=-1))
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = jax.jit(jax.vmap(lambda key: jax.grad(surrogate)(params, key)["router"][0]))(keys)
    p, h = np.asarray(jax.nn.softmax(params["router"][0]), np.float64), np.asarray(outputs[0, :, 0])
    mean = p @ h
    expected = 2 * mean * p * (h - mean)  # the loss's slope at the drawn output, its mean 2 E[h], along the softmax
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - expected) < 6 * error).all()
    exact = p * (h**2 - p @ h**2)
    assert (np.abs(drawn.mean(axis=0) - exact) > 20 * error).any()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy", "squared error"])
def test_verdicts(loss, monkeypatch):
    names = {*UNBIASED, EXACT_FOR_SQUARES, "skip without weights", "straight-through", "Switch"}
    monkeypatch.setattr(biased_gradients, "METHODS", {name: METHODS[name] for name in METHODS if name in names})
    rows = biased_gradients.measure(biased_gradients.problems(0)[loss], 2000, 0)
    passed = {row["method"] for row in rows if row["passed"]}
    assert passed == UNBIASED | ({EXACT_FOR_SQUARES} if loss == "squared error" else set())
