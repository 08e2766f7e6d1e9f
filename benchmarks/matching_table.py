"""The tables of `docs/matching.md`, in Markdown, from the numbers that `benchmarks.matching` wrote.

python -m benchmarks.matching_table [--results benchmarks/results/matching.json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

PEERS = ("POT", "SciPy", "lapx", "OR-tools", "optax")


def milliseconds(seconds: float | None) -> str:
    """Three digits, or a dash."""
    if seconds is None:
        return "-"
    value = 1e3 * seconds
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def solvers(rows: list[dict[str, Any]]) -> list[str]:
    """Times in ms, and how many times faster than POT: a call from Python, and a call in a program."""
    lines = [
        f"| scores | n | k | matching | in a program | other | {' | '.join(PEERS)} | POT / matching | steps |",
        "|" + "---|" * (9 + len(PEERS)),
    ]
    for row in rows:
        times = row["seconds"]
        inside = times.get("gumbel_moe in a program")
        ratio = f"{times['POT'] / times['gumbel_moe']:.1f}" + (f" ({times['POT'] / inside:.1f})" if inside else "")
        cells = [row["family"], f"{row['n']:,}", row["k"], milliseconds(times["gumbel_moe"])]
        cells += [milliseconds(times.get(name)) for name in ("gumbel_moe in a program", "gumbel_moe other", *PEERS)]
        lines.append("| " + " | ".join(str(cell) for cell in [*cells, ratio, row["steps"]]) + " |")
    return lines


def draws(rows: list[dict[str, Any]]) -> list[str]:
    """Times of a draw and its parts, and of warm starts."""
    lines = [
        "| n | k | noise | matching | distances | draw | / matching | / noise | moved | warm | new noise | warm |",
        "|" + "---|" * 12,
    ]
    parts = ("moved, cold", "moved, warm", "new noise, cold", "new noise, warm")
    for row in rows:
        times = row["seconds"]
        cells = [
            f"{row['n']:,}",
            row["k"],
            *(milliseconds(times[name]) for name in ("noise", "solve", "distances", "draw")),
        ]
        cells += [f"{row['draw_over_solve']:.2f}", f"{row['draw_over_noise']:.2f}"]
        cells += [milliseconds(times[name]) for name in parts]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def main() -> None:
    """Print both tables and the rest of the numbers."""
    parser = argparse.ArgumentParser(description="Tables of the matching's speed.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/matching.json"))
    table = json.loads(parser.parse_args().results.read_text())
    rows = table["rows"]
    print("\n".join([*solvers(rows), "", *draws(table["draws"]), ""]))
    worst = {key: max(row[key] for row in rows) for key in ("relative_difference_to_pot", "gap_over_range")}
    memory = {(row["n"], row["k"]): round(row["temporary_memory_over_scores"], 1) for row in rows}
    compiled = [row["compile_seconds"] for row in rows]
    print(worst, memory, f"compile {min(compiled):.1f} to {max(compiled):.1f} s", sep="\n")
    print(table["batch"], table["exponent_in_n_at_64_experts"], table["machine"], sep="\n")


if __name__ == "__main__":
    main()
