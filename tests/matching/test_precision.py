"""Products of low precision, as accelerators have them by default, leave the optimum and its gap as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.matching import _rows, _solve
from gumbel_moe.matching._solve import solve_one
from tests.matching import large_problems
from tests.precision import BFLOAT16, TF32, default_products, with_mantissa

K = 5
SMALL, WITH_CORE = 20, 240
SLOW = pytest.mark.slow


def solver():
    """A function of its own, as JAX remembers what it traced."""
    return lambda s: solve_one(s, jnp.full(K, len(s) // K, jnp.int32), full=True)


def own_scores_by_a_product(scores, assignment):
    return jnp.einsum("ij,ij->i", scores, jax.nn.one_hot(assignment, K, dtype=scores.dtype))


def test_every_product_asks_for_precision():
    assert default_products(solver(), jnp.zeros((WITH_CORE, K))) == 0


@pytest.mark.parametrize(
    ("n", "bits"),
    [(SMALL, BFLOAT16)] + [pytest.param(WITH_CORE, bits, marks=SLOW) for bits in (TF32, BFLOAT16)],
)
def test_optimum_and_gap_stay(n, bits):
    exact, coarse = jax.jit(solver()), jax.jit(with_mantissa(solver(), bits))
    for family in ["random", "skewed", "ties"]:
        s = large_problems.scores(family, n, K, 0)
        jax.tree.map(np.testing.assert_array_equal, coarse(s), exact(s))


def test_a_product_of_default_precision_is_noticed(monkeypatch):
    s = large_problems.scores("random", SMALL, K, 0)
    monkeypatch.setattr(_solve, "own_scores", own_scores_by_a_product)
    monkeypatch.setattr(_rows, "own_scores", own_scores_by_a_product)
    assert default_products(solver(), s) > 0
    coarse = jax.jit(with_mantissa(solver(), BFLOAT16))(s)
    total = np.asarray(s, np.float64)[np.arange(SMALL), coarse.assignment].sum()
    assert abs(coarse.value - total) > 1e-3
    assert default_products(lambda s: _rows.regret(s, coarse.assignment), s) > 0
