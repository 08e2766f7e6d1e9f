"""Runs the Python blocks of the Markdown pages: every block of a page, in order, in one namespace."""

from pathlib import Path

import jax
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()

_COMPILED_QUICKLY = ("gumbel_moe/", "tests/cli/", "tests/inference/", "tests/distributions/conformance/")
_MAPS = Path("/proc/self/maps")
_MANY_MAPS = 25_000


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The README's examples use every room a little: they are smoke tests."""
    readme = Path(config.rootpath, "README.md")
    for item in items:
        if item.path == readme:
            item.add_marker("smoke")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Less optimisation where most of the time goes to the compiler, for programs that run once and for short.

    Elsewhere programs are tested as users run them.
    """
    file = item.path.relative_to(item.config.rootpath).as_posix()
    quick = item.path.suffix == ".md" or file.startswith(_COMPILED_QUICKLY)
    jax.config.update("jax_disable_most_optimizations", quick)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget compiled programs between files: Linux lets a process have 65,530 mappings, of which each takes several,
    and the compiler crashes where it gets no more.
    """
    last_of_file = nextitem is None or nextitem.path != item.path
    if last_of_file and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
