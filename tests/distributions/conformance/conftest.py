"""Which cases of what NumPyro asks of every distribution run by default."""

from pathlib import Path

import pytest

from gumbel_moe.distributions import UniformAssignment
from tests.slow_cases import leave_to_slow

HERE = Path(__file__).parent
OF_ALL = {"test_log_prob.py", "test_shapes.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The simplest of three distributions with one base is slow, but for its shapes and log-probability."""
    leave_to_slow(
        items, HERE, lambda item, values: values.get("cls") is UniformAssignment and item.path.name not in OF_ALL
    )
