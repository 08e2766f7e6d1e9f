"""The picture of who is biased, from the rows of `benchmarks.biased_gradients`.

python -m benchmarks.biased_gradients_picture [--results benchmarks/results/biased_gradients.json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from gumbel_moe.diagnostics.pictures import write_png

_COLOURS = {True: "#2a7f62", False: "#b5482f"}


def picture(rows: list[dict[str, Any]], path: str | Path) -> None:
    """The relative bias of every method, of the router's gradient and of the experts'."""
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 5.2), sharey=True, layout="constrained")
    for ax, part in zip(axes, ("router", "experts"), strict=True):
        for place, row in enumerate(rows):
            found = row[part]
            ax.barh(place, found["bias"], color=_COLOURS[row["passed"]], height=0.62)
            ax.text(found["bias"] + 0.03, place, f"{found['bias']:.2f}", va="center", fontsize=8)
        ax.axvline(1, color="#c8c8c8", linewidth=0.8, zorder=0)
        ax.set_xlim(0, max(row[part]["bias"] for row in rows) * 1.15)
        ax.set_title(f"{part}: length of the bias over that of the gradient", fontsize=9, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), labels=[row["method"] for row in rows], fontsize=8.5)
    axes[0].invert_yaxis()
    chosen = next(place for place, row in enumerate(rows) if row["kind"] == "chosen")
    for ax in axes:
        ax.axhline(chosen - 0.5, color="#808080", linewidth=0.8, linestyle=":")
    write_png(figure, path)


def main() -> None:
    """Draw what was measured."""
    parser = argparse.ArgumentParser(description="The picture of biased gradients.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/biased_gradients.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/biased_gradients.png"))
    args = parser.parse_args()
    picture(json.loads(args.results.read_text(encoding="utf-8"))["losses"]["cross-entropy"], args.picture)


if __name__ == "__main__":
    main()
