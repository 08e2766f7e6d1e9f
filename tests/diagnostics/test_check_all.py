"""Many estimators with their verdicts, and how many draws a bias needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_all, check_unbiased

KEY = jax.random.key(0)
SPREAD = jnp.array([0.5, 1.0, 2.0, 0.0])


@jax.jit
def right(key):
    return 1 + SPREAD * jax.random.normal(key, (4,))


@jax.jit
def wrong(key):
    return right(key) + jnp.array([0.0, 0.5, 0.0, 0.0])


@pytest.fixture(scope="module")
def table():
    return check_all({"right": right, "wrong": wrong}, jnp.ones(4), KEY, draws=400)


def test_verdicts(table):
    """False-fail rate: 1e-6, the table's own. The bias is 0.5 of a gradient whose norm is 2."""
    summary = table.summary
    assert summary["passed"].tolist() == [True, False]
    assert not table.passed
    assert summary["bias"]["wrong"] == pytest.approx(0.5, abs=0.2)
    np.testing.assert_allclose(summary["relative_bias"], summary["bias"] / 2)
    np.testing.assert_allclose(summary["relative_detectable_bias"], summary["detectable_bias"] / 2)
    np.testing.assert_allclose(summary["variance"], 5.25, rtol=0.2)
    text = str(table)
    assert text.startswith("FAILED: wrong; 1,600 draws of 4 coordinates each")
    assert "- wrong: bias in 1 of 4 coordinates, most clearly gradient[1]: +0.5" in text


def test_rate_is_shared(table):
    alone = check_unbiased(right, jnp.ones(4), KEY, draws=400, false_fail_rate=5e-7)
    assert table.reports["right"].limit == alone.limit
    assert table.reports["right"].max_z == alone.max_z


def test_every_report_has_a_page(table, tmp_path):
    table.save(tmp_path / "all.html")
    page = (tmp_path / "all.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    for raw in ("max_z", "spread_limit", "detectable_bias", "r_hat", "nan"):
        assert raw not in page.split("base64,")[0]


def test_what_is_refused():
    with pytest.raises(TypeError, match="estimates must be a dict from names to functions, got function"):
        check_all(lambda key: key, jnp.ones(1), KEY)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="at least one name"):
        check_all({}, jnp.ones(1), KEY)
    with pytest.raises(ValueError, match="exact must have the shapes") as caught:
        check_all({"right": right}, jnp.ones(3), KEY)
    assert "of the estimator 'right'" in caught.value.__notes__


def test_draws_needed(table):
    """The draws that there were for what was detectable in them, and of twice the bias a quarter, nearly."""
    report = table.reports["right"]
    assert report.draws_needed(report.detectable_bias * (1 + 1e-9)) == report.draws
    needed = report.draws_needed(report.detectable_bias / 2)
    assert needed == pytest.approx(4 * report.draws, rel=0.02)
    more = check_unbiased(right, jnp.ones(4), KEY, draws=needed, false_fail_rate=5e-7)
    assert more.detectable_bias == pytest.approx(report.detectable_bias / 2, rel=0.1)  # of other draws


@pytest.mark.parametrize(("bias", "said"), [(0.0, "bias must be"), (-1.0, "bias must be"), (1e-9, "rounding alone")])
def test_draws_needed_refuses(table, bias, said):
    with pytest.raises(ValueError, match=said):
        table.reports["right"].draws_needed(bias)


def test_draws_needed_of_what_is_not_finite():
    report = check_unbiased(lambda key: right(key) * jnp.array([1, jnp.nan, 1, 1]), jnp.ones(4), KEY, draws=10)
    with pytest.raises(ValueError, match="draws that are finite"):
        report.draws_needed(0.1)


def test_relative_to_nothing_is_not_a_number(table):
    same = check_unbiased((right, right), None, KEY, draws=10)
    assert np.isnan(same.relative_detectable_bias)
    assert "norm of the gradient" not in str(same)
    assert "of the norm of the gradient" in str(table.reports["right"])
