"""Settings and fixtures of all tests."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent
# Code under test here is the library's own from end to end; elsewhere other libraries mix widths as they please.
STRICT = ("matching/", "estimators/test_")


@pytest.fixture(autouse=True)
def strict_dtypes(request: pytest.FixtureRequest) -> Iterator[None]:
    """No silent mixing of array dtypes: an accidental float64 or int64 constant is an error."""
    strict = request.node.path.relative_to(HERE).as_posix().startswith(STRICT)
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        yield


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def x64(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The test runs in both float widths; the value says whether it is the wide one."""
    with jax.enable_x64(request.param):
        yield request.param
