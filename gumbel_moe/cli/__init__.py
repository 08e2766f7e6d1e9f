"""The command line: `gumbel-moe diagnose`, `gumbel-moe check` and `gumbel-moe sample`."""

from gumbel_moe.cli._main import main

__all__ = ["main"]
