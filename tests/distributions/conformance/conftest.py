"""Which cases of what NumPyro asks of every distribution run by default."""

from pathlib import Path

import pytest

from gumbel_moe.distributions import UniformAssignment

HERE = Path(__file__).parent
OF_ALL = {"test_log_prob.py", "test_shapes.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The simplest of three distributions with one base is slow, but for its shapes and log-probability."""
    for item in items:
        values = getattr(item, "callspec", None) and item.callspec.params
        own = item.path.is_relative_to(HERE) and item.path.name not in OF_ALL
        if own and values and values.get("cls") is UniformAssignment:
            item.add_marker(pytest.mark.slow)
