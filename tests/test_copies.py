"""Copies, deep and by pickling, of what users keep: equal, and of as much use."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import assignment_report, check_unbiased, compare_variance, routing_report
from gumbel_moe.distributions import Estimate, GumbelMatching, SkipAssignment, UniformAssignment
from gumbel_moe.matching import solve_matching
from gumbel_moe.routing import IndependentRouter, as_one_batch
from tests.routing.routers import ALL, KEY, logits

LOGITS = logits()
WAYS = {"pickle": lambda x: pickle.loads(pickle.dumps(x)), "deepcopy": copy.deepcopy}


def assert_same(copied, original):
    assert type(copied) is type(original)
    assert jax.tree.structure(copied) == jax.tree.structure(original)
    for one, other in zip(jax.tree.leaves(copied), jax.tree.leaves(original), strict=True):
        np.testing.assert_array_equal(one, other)


ROUTERS = ALL | {f"{name}, as one batch": as_one_batch(ALL[name]) for name in ("skip", "expert_choice")}


@pytest.mark.parametrize("way", WAYS)
def test_routers_and_their_records(way):
    for name, router in ROUTERS.items():
        copied = WAYS[way](router)
        batched = LOGITS[None] if "batch" in name else LOGITS
        routing = router(KEY, batched)
        assert_same(WAYS[way](routing), routing)
        assert_same(copied(KEY, batched), routing)
        if name in ALL:
            assert copied == router
            assert hash(copied) == hash(router)


# Plain ones are copied in distributions/conformance.
DISTRIBUTIONS = {
    "masked": GumbelMatching(LOGITS, 3, mask=jnp.arange(8) < 7),
    "masked skip": SkipAssignment(LOGITS, 3, mask=jnp.arange(8) < 7),
    "masked uniform": UniformAssignment(8, (3, 3, 3), mask=jnp.arange(8) < 7),
    "batched capacity": GumbelMatching(jnp.stack([LOGITS] * 2), jnp.array([[3, 3, 3], [4, 3, 2]])),
}


@pytest.mark.parametrize("way", WAYS)
def test_distributions(way):
    for name, original in DISTRIBUTIONS.items():
        copied = WAYS[way](original)
        assert_same(copied, original)
        drawn = original.sample(KEY)
        np.testing.assert_array_equal(copied.sample(KEY), drawn, err_msg=name)
        assert copied.support(drawn).all()
        assert copied.support == original.support


@pytest.mark.parametrize("way", WAYS)
def test_results(way):
    for original in (solve_matching(LOGITS, 3), Estimate(jnp.float32(-1), jnp.float32(0.1))):
        assert_same(WAYS[way](original), original)


def estimate(key):
    return jax.random.normal(key, (3,))


@pytest.fixture(scope="module")
def reports():
    value = np.array([[[0, 1, 1, 0]] * 3] * 2)
    return [
        check_unbiased(estimate, jnp.zeros(3), KEY, draws=64),
        compare_variance({"a": estimate, "b": lambda key: 2 * estimate(key)}, KEY, draws=64),
        routing_report(IndependentRouter(), LOGITS, KEY, draws=64),
        assignment_report({"z": value}, "z", 2),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_reports(way, reports):
    for original in reports:
        for _ in range(2):  # before and after what is made on demand
            copied = WAYS[way](original)
            assert str(copied) == str(original)
            assert copied.summary.equals(original.summary)
            assert copied.data.equals(original.data)  # but for the time it was made
