"""Both solvers of the matching: on a CPU, where these tests run, nearly all problems go to the compiled one."""

from pathlib import Path

import jax
import pytest

from gumbel_moe.matching import _compiled, _solve

HERE = Path(__file__).parent
SEARCHED = {f"test_{name}.py" for name in ("optimum", "properties", "extreme", "masks", "bad_input", "several")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search takes seconds to compile for each shape. By default it solves small problems in float32 for what it is
    tested for alone; the compiled solver rejects what is wrong with a width or a transformation.
    """
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        if item.path.is_relative_to(HERE) and values and values.get("solver") == "search":
            heavy = values.get("x64") or "large" in item.name or item.originalname == "test_ties_take_few_steps"
            if heavy or item.path.name not in SEARCHED:
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
