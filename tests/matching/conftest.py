"""Both solvers of the matching: on a CPU, where these tests run, nearly all problems go to the compiled one."""

import jax
import pytest

from gumbel_moe.matching import _compiled, _solve


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
