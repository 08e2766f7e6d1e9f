"""Settings and fixtures of all tests."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent
# Code of these rooms is the library's own from end to end; elsewhere other libraries mix widths as they please.
STRICT = {"matching", "estimators"}
# Here most of the time would go to the compiler, for programs that run once and for short.
COMPILED_QUICKLY = ("cli", "inference", "distributions/conformance")


@pytest.fixture(autouse=True)
def strict_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    """No silent mixing of array dtypes: an accidental float64 or int64 constant is an error."""
    strict = request.node.path.relative_to(HERE).parts[0] in STRICT
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        yield


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Less optimisation where it does not pay. Elsewhere programs are tested as users run them."""
    folder = request.path.relative_to(HERE).parent.as_posix()
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", folder in COMPILED_QUICKLY)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The test runs in both float widths; the value says whether it is the wide one."""
    with jax.enable_x64(request.param):
        yield request.param
