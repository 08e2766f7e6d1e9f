"""A progress bar, if one is wanted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gumbel_moe._needs import need


@contextmanager
def progress_bar(wanted: bool, total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """What to call with the number of steps done."""
    if not wanted:
        yield lambda done: None
        return
    with need("tqdm", "progress=True").tqdm(total=total, unit=f" {unit}") as bar:
        yield bar.update
