"""Any pytree, any float width, any key; bad input raises in the caller's words."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.diagnostics._layout import layout_of

KEY = jax.random.key(0)


class Pair(typing.NamedTuple):
    first: typing.Any
    second: typing.Any


def tree(value):
    return {
        "layers": [Pair(value(2, 3), value()), Pair(value(0, 4), None)],
        "bias": (value(1),),
    }


def noise(key):
    return tree(lambda *shape: jax.random.normal(jax.random.fold_in(key, len(shape)), shape))


NOISE = jax.jit(noise)  # one function, so that what is compiled for it serves all tests
ZEROS = tree(lambda *shape: jnp.zeros(shape))
NAMES = ["bias.0[0]", *(f"layers.0.first[{i},{j}]" for i in range(2) for j in range(3)), "layers.0.second"]


def test_names_shapes_and_empty_leaves():
    report = check_unbiased(NOISE, ZEROS, KEY, draws=100)
    assert report.passed
    assert list(report.summary.index) == NAMES
    assert report.data["posterior"]["parameter"].to_numpy().tolist() == NAMES
    layout = layout_of("it", ZEROS)
    assert [layout.place(name) for name in NAMES] == list(range(8))


@pytest.mark.parametrize(
    "keep", [["layers.0.first[1,2]", "layers.0.second"], [6, 7], np.array([7, -2]), (7, 6, 6)], ids=str
)
def test_kept_coordinates_by_name_and_place(keep):
    report = check_unbiased(NOISE, ZEROS, KEY, draws=100, keep=keep)
    assert report.data["posterior"]["parameter"].to_numpy().tolist() == NAMES[6:]
    assert report.data["posterior"]["gradient"].shape == (4, 100, 2)
    assert report.summary["ess"].notna().tolist() == [False] * 6 + [True] * 2


def test_kept_coordinates_by_number():
    some, none = (check_unbiased(NOISE, ZEROS, KEY, draws=50, keep=keep) for keep in (3, 0))
    assert some.data["posterior"]["gradient"].shape == (4, 50, 3)
    assert none.data["posterior"]["gradient"].shape == (4, 50, 0)
    assert none.passed
    assert none.summary["z"].tolist() == some.summary["z"].tolist()


def test_a_single_number():
    report = check_unbiased(lambda key: jax.random.normal(key) + 1, 1.0, KEY, draws=50)
    assert report.passed
    assert list(report.summary.index) == ["gradient"]


def test_moments_are_those_of_the_draws():
    """The streamed mean, deviation and z-score against NumPy's, with all draws kept, in several uneven batches."""
    estimate = jax.jit(lambda key: jax.random.exponential(key, (3,)) * jnp.array([1.0, 10.0, 1e-3]))
    exact = jnp.array([1.0, 10.0, 1e-3])
    report = check_unbiased(estimate, exact, KEY, draws=501, chains=3)
    drawn = report.data["posterior"]["gradient"].to_numpy().reshape(-1, 3).astype(np.float64)
    error = drawn.std(axis=0, ddof=1) / np.sqrt(1503)
    np.testing.assert_allclose(report.summary["mean"], drawn.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(report.summary["se"], error, rtol=1e-5)
    np.testing.assert_allclose(report.summary["z"], (drawn.mean(axis=0) - np.asarray(exact)) / error, rtol=2e-3)
    assert len(np.unique(drawn)) == drawn.size
    assert report.variance == pytest.approx(drawn.var(axis=0, ddof=1).sum(), rel=1e-5)


def test_both_float_widths(x64):
    dtype = jnp.float64 if x64 else jnp.float32
    estimate = jax.jit(lambda key: {"a": jax.random.normal(key, (3,), dtype), "b": jnp.array(1, jnp.bfloat16)})
    exact = {"a": np.zeros(3), "b": np.ones(())}
    report = check_unbiased(estimate, exact, KEY, draws=100)
    assert report.passed
    assert report.data["posterior"]["gradient"].dtype == dtype
    # A bias of 1e-8 in a number without spread is rounding in one width and bias in the other.
    exact["b"] = np.array(1 + 1e-8)
    precise = jax.jit(lambda key: {"a": jax.random.normal(key, (3,), dtype), "b": jnp.array(1, dtype)})
    assert check_unbiased(precise, exact, KEY, draws=100).passed is not x64


def test_old_keys():
    assert check_unbiased(lambda key: jax.random.normal(key, (2,)), jnp.zeros(2), jax.random.PRNGKey(3)).passed


def test_exact_as_a_function():
    assert check_unbiased(NOISE, lambda: ZEROS, KEY, draws=100).passed


@pytest.mark.slow
def test_two_estimators_against_each_other():
    one = jax.jit(lambda key: {"a": 5 + jax.random.normal(key, (3,)), "b": jnp.array(0.1)})
    other = jax.jit(lambda key: {"a": 4 + jax.random.exponential(key, (3,)), "b": jnp.array(0.3) / 3})
    report = check_unbiased((one, other), None, KEY)
    assert report.passed, str(report)
    assert report.summary["sd"]["a[0]"] == pytest.approx(np.sqrt(2), rel=0.05)  # their keys are independent
    assert not check_unbiased((one, lambda key: jax.tree.map(lambda leaf: 1.05 * leaf, other(key))), None, KEY).passed
    # An estimator against itself has the variance of both.
    assert check_unbiased((one, one), None, KEY).summary["sd"]["a[0]"] == pytest.approx(np.sqrt(2), rel=0.05)


def test_the_result_does_not_depend_on_what_was_compiled_before():
    """A plain function may read a variable that has changed since the last call."""
    shift = {"by": 0.0}

    def estimate(key):
        return jax.random.normal(key, (2,)) + shift["by"]

    assert check_unbiased(estimate, jnp.zeros(2), KEY, draws=100).passed
    shift["by"] = 5.0
    assert not check_unbiased(estimate, jnp.zeros(2), KEY, draws=100).passed


def zeros(key):
    return {"a": jnp.zeros(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimate": 3}, TypeError, "estimate must be a function of a key, got int"),
        (
            {"estimate": lambda key: jnp.arange(3)},
            TypeError,
            "what estimate returns must .* got dtype int32 at gradient",
        ),
        ({"estimate": lambda key: {}}, ValueError, "what estimate returns must hold at least one number"),
        ({"exact": {"b": jnp.zeros(3)}}, ValueError, "exact must have the structure of what estimate returns"),
        ({"exact": {"a": jnp.zeros(4)}}, ValueError, r"exact must have the shapes .*\(3,\) at a, got \(4,\)"),
        ({"exact": {"a": jnp.array([0, 0, jnp.nan])}}, ValueError, r"exact must be finite, got nan at a\[2\]"),
        ({"exact": {"a": np.zeros(3, int)}}, TypeError, "exact must .* got dtype int64 at a"),
        ({"exact": None}, TypeError, "estimate must be a pair of functions when exact is None, got function"),
        ({"estimate": (zeros, 1), "exact": None}, TypeError, r"estimate\[1\] must be a function"),
        (
            {"estimate": (zeros, lambda key: {"a": jnp.zeros(2)}), "exact": None},
            ValueError,
            r"what estimate\[1\] returns must have the shapes of what estimate\[0\] returns",
        ),
        ({"draws": 3}, ValueError, "draws must be at least 4, got 3"),
        ({"draws": 2.5}, ValueError, "draws must be a positive int, got 2.5"),
        ({"chains": 0}, ValueError, "chains must be a positive int, got 0"),
        ({"false_fail_rate": 0}, ValueError, "false_fail_rate must be between 0 and 1, got 0"),
        ({"false_fail_rate": 1.5}, ValueError, "false_fail_rate must be between 0 and 1, got 1.5"),
        ({"keep": -1}, ValueError, "keep must not be negative, got -1"),
        ({"keep": 1.5}, ValueError, "keep must be a number or a sequence"),
        ({"keep": "a[0]"}, ValueError, "keep must be a number or a sequence"),
        ({"keep": [3]}, ValueError, "keep must hold indices below 3, got 3"),
        ({"keep": ["a[3]"]}, ValueError, r"there is no coordinate 'a\[3\]'; the leaves are a\[3\]"),
        ({"keep": ["c"]}, ValueError, "there is no coordinate 'c'"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"estimate": zeros, "exact": {"a": jnp.zeros(3)}, "key": KEY} | change
    with pytest.raises(error, match=message):
        check_unbiased(**arguments)
