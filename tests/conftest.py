"""Settings and fixtures of all tests."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent
# Code under test here is the library's own from end to end; elsewhere other libraries mix widths as they please.
STRICT = ("matching/", "estimators/test_")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests marked `each_choice`, every value of every parameter runs in one case; the other cases are slow."""
    cases = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("each_choice"):
            cases[item.parent, item.originalname].append(item)
    for grid in cases.values():
        quick = [case for case in grid if case.get_closest_marker("slow") is None]
        values = {case: _values(case) for case in quick}
        missing, used = set().union(*values.values()), Counter()
        while missing:
            # The most new values, of those the ones that occurred the fewest times: 2 by 6 cases become 3 and 3.
            chosen = max(
                quick, key=lambda case: (len(values[case] & missing), -sum(used[value] for value in values[case]))
            )
            missing -= values[chosen]
            used.update(values[chosen])
            quick.remove(chosen)
        for case in quick:
            case.add_marker(pytest.mark.slow)


def _values(case: pytest.Function) -> set[tuple[str, ...]]:
    """What the case has for each of its parameters; those that are given together are one."""
    params = dict(case.callspec.params)
    together = [mark.args[0] for mark in case.iter_markers("parametrize")]
    names = [[name.strip() for name in group.split(",")] if isinstance(group, str) else group for group in together]
    alone = [[name] for name in params.keys() - set().union(*names)]
    return {(*group, *(repr(params[name]) for name in group)) for group in names + alone}


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
