"""Runs the Python blocks of the Markdown pages: every block of a page, in order, in one namespace."""

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["*.md"]).pytest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The README's examples use every room a little: they are smoke tests."""
    readme = Path(config.rootpath, "README.md")
    for item in items:
        if item.path == readme:
            item.add_marker("smoke")
