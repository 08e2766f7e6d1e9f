"""The pictures of `docs/diagnostics.md`, from the page's own code.

python -m benchmarks.diagnostics_pictures [--page docs/diagnostics.md] [--images docs/images]
"""

import argparse
import re
from pathlib import Path
from typing import Any

NAMES = {"report": "unbiased", "wrong": "biased", "table": "all", "comparison": "variance", "routing": "routing"}
"""What the page calls a report, and the picture of it."""


def run(page: Path) -> dict[str, Any]:
    """The names that the page's blocks define."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(block, names)
    return names


def main() -> None:
    """Run the page, draw its reports."""
    parser = argparse.ArgumentParser(description="Pictures of the page on diagnostics.")
    parser.add_argument("--page", type=Path, default=Path("docs/diagnostics.md"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    names = run(args.page)
    args.images.mkdir(parents=True, exist_ok=True)
    for name, picture in NAMES.items():
        names[name].plot(args.images / f"diagnostics_{picture}.png")


if __name__ == "__main__":
    main()
