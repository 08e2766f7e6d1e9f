"""Runs the Python blocks of the Markdown pages: every block of a page, in order, in one namespace."""

from pathlib import Path

import jax
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()

_MAPS = Path("/proc/self/maps")
_MANY_MAPS = 25_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The README's examples use every room a little: they are smoke tests."""
    readme = Path(config.rootpath, "README.md")
    for item in items:
        if item.path == readme:
            item.add_marker("smoke")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between files: Linux lets a process have 65,530 mappings, of which each takes several,
    and the compiler crashes where it gets no more.
    """
    last_of_file = nextitem is None or nextitem.path != item.path
    if last_of_file and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
