"""Both solvers of the matching: on a CPU, where these tests run, nearly all problems go to the compiled one."""

from pathlib import Path
from typing import Any

import jax
import pytest

from gumbel_moe.matching import _compiled, _solve
from tests.slow_cases import leave_to_slow

HERE = Path(__file__).parent
SEARCHED = {f"test_{name}.py" for name in ("optimum", "properties", "extreme", "masks", "bad_input", "several")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The search takes seconds to compile for each shape. By default it solves small problems in float32 for what it is
    tested for alone; the compiled solver rejects what is wrong with a width or a transformation.
    """

    def heavy(item: pytest.Item, values: dict[str, Any]) -> bool:
        of_many_steps = "large" in item.name or item.name.startswith("test_ties_take_few_steps")
        return values.get("solver") == "search" and (
            of_many_steps or values.get("x64", False) or item.path.name not in SEARCHED
        )

    leave_to_slow(items, HERE, heavy)


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
