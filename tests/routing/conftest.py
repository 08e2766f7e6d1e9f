"""Which cases of what every router promises run by default."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIKE_OTHERS = {"base", "sinkhorn", "quantile_balancing"}
OWN = {"test_base.py", "test_sinkhorn.py", "test_bias.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gated routers that keep to places as others do have their own tests by default, and grids as slow ones."""
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        grid = item.path.is_relative_to(HERE) and item.path.name not in OWN
        if grid and values and values.get("name") in LIKE_OTHERS:
            item.add_marker(pytest.mark.slow)
