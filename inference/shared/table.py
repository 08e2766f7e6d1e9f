"""Rows as an aligned table to read in a terminal."""

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
Column = tuple[str, str, str]
"""Key of the row, heading, format."""


def aligned_table(title: str, columns: Iterable[Column], rows: list[Row]) -> str:
    """Words to the left (the first two columns), numbers to the right, - for what a row lacks; ruled headings."""
    columns = list(columns)
    cells = [[heading for _, heading, _ in columns]]
    cells += [["-" if row.get(key) is None else format(row[key], how) for key, _, how in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([title, "", lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
