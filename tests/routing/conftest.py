"""Which cases of what every router promises run by default."""

from pathlib import Path

import pytest

from tests.slow_cases import leave_to_slow

HERE = Path(__file__).parent
LIKE_OTHERS = {"base", "sinkhorn", "quantile_balancing"}
OWN = {"test_base.py", "test_sinkhorn.py", "test_bias.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gated routers that keep to places as others do have their own tests by default, and grids as slow ones."""
    leave_to_slow(items, HERE, lambda item, values: values.get("name") in LIKE_OTHERS and item.path.name not in OWN)
