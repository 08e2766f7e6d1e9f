"""Cases that a folder leaves to the slow tests, told by their parameters; for the `conftest.py` of the folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def leave_to_slow(
    items: list[pytest.Item], folder: Path, chosen: Callable[[pytest.Item, dict[str, Any]], bool]
) -> None:
    """Mark as slow what lies under `folder` and is `chosen`, a function of a case and its parameters."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and item.path.is_relative_to(folder) and chosen(item, callspec.params):
            item.add_marker(pytest.mark.slow)
