"""The estimators of this library and the usual wrong ones, on the toy, on digits and on random instances.

False-fail rate of a test of an unbiased estimator: 1e-6, that of `check_unbiased`. Its verdict on the biased ones shows
that it can fail.
"""

import functools

import jax
import pytest

from gumbel_moe.diagnostics import check_unbiased
from tests.diagnostics.problems import BIASED, PROBLEMS, UNBIASED, estimator

DRAWS = {"toy": 2000, "digits": 500, "random": 2000}
QUICK = {
    ("toy", "gumbel_matching"),
    ("toy", "gumbel_matching_uncorrected"),
    ("random", "skip"),
    ("random", "skip_uncorrected"),
    ("random", "wrong_sign"),
    ("random", "reused_key"),
    ("random", "no_key"),
}


@functools.cache
def problem(name):
    made = PROBLEMS[name]()
    return made, made.exact()


def cases(kinds):
    return [
        pytest.param(name, kind, marks=[] if (name, kind) in QUICK else pytest.mark.slow)
        for name in PROBLEMS
        for kind in kinds
    ]


def report(name, kind):
    made, exact = problem(name)
    return check_unbiased(estimator(made, kind), exact, jax.random.key(1), draws=DRAWS[name], keep=4)


@pytest.mark.parametrize(("name", "kind"), cases(UNBIASED))
def test_unbiased(name, kind):
    found = report(name, kind)
    assert found.passed, str(found)
    assert found.reasons == ()


@pytest.mark.parametrize(("name", "kind"), cases(BIASED))
def test_biased(name, kind):
    found = report(name, kind)
    assert not found.passed
    assert found.max_z > 1.5 * found.limit
    assert "bias in" in found.reasons[0]
    # Switch draws nothing, and a loss less itself leaves no score.
    still = any("does the estimator use its key" in reason for reason in found.reasons)
    assert still == (kind in ("switch", "no_key", "reused_key"))
