"""Both solvers of the matching: on a CPU, where these tests run, nearly all problems go to the compiled one."""

from pathlib import Path

import jax
import pytest

from gumbel_moe.matching import _compiled, _solve

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search in float64 is slow: float32 rejects what is wrong with it, and the compiled solver what is wrong with
    a width.
    """
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        if item.path.is_relative_to(HERE) and values and values.get("solver") == "search" and values.get("x64"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", params=["compiled", "search"])
def solver(request):
    """Every problem of the module's tests goes to this solver, whatever its size."""
    if request.param == "compiled" and not _compiled.AVAILABLE:
        pytest.skip("installed without the compiled solver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_solve, "suits", lambda n, k, each: n > 0 and request.param == "compiled")
        jax.clear_caches()  # functions that were traced with the other one
        yield request.param
    jax.clear_caches()
