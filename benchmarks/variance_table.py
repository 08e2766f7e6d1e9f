"""The tables of `docs/variance.md`, in Markdown, from the numbers that `benchmarks.variance_study` wrote.

python -m benchmarks.variance_table [--results benchmarks/results/variance_study.json]
                                    [--floored benchmarks/results/variance_study_floored.json]
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SETTING = ("informed", "favour", "k", "ratio", "factor", "scale")
PROCESSES = ("skip", "gumbel_matching")
ROUTERS = {"balanced": (False, 0.0), "skewed": (False, 1.5), "informed": (True, 0.0)}


def lower(row: Row) -> str:
    """Which process has the lower variance, if the interval of the ratio leaves no doubt."""
    ratio = row["gumbel_matching_over_skip"]
    return "skip" if ratio["low"] > 1 else "GM" if ratio["high"] < 1 else "open"


def table(rows: list[Row], heads: list[str], names: list[str]) -> list[str]:
    """One line per setting; `names` of what is varied."""
    lines = head([*heads, "skip", "Gumbel-Matching (GM)", "GM / skip", "lower"])
    for row in rows:
        cells = [cell(row, name) for name in names]
        cells += [f"{row[process]['all']['value']:.2f}" for process in PROCESSES]
        ratio = row["gumbel_matching_over_skip"]
        cells += [f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", lower(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def weights(rows: list[Row]) -> list[str]:
    """The tail of the weights of Gumbel-Matching, and what it does to the gradient's variance."""
    titles = ["tail index", "largest weight", "largest draw", "effective fraction"]
    lines = head(["router", "datapoints per expert", "scale", *titles])
    for row in rows:
        own = row["gumbel_matching"]
        cells = [cell(row, name) for name in ("router", "ratio", "scale")]
        cells += [f"{own['tail_index']:.1f}", f"{own['max_weight']:.3g}", f"{own['largest_draw']:.1%}"]
        cells.append(f"{own['effective_fraction']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def floors(rows: list[Row], floored: list[Row], heads: list[str], names: list[str]) -> list[str]:
    """What a floor does for Gumbel-Matching, beside the experts' part alone: a student leaves nothing else."""
    titles = ["skip", "GM", "GM, floor", "GM, floor / skip", "lower", "experts: skip", "GM", "GM, floor"]
    lines = head([*heads, *titles])
    for row in rows:
        other = next(new for new in floored if all(new[name] == row[name] for name in SETTING))
        both = [row["skip"], row["gumbel_matching"], other["gumbel_matching"]]
        ratio = other["gumbel_matching_over_skip"]
        cells = [cell(row, name) for name in names]
        cells += [f"{own['all']['value']:.2f}" for own in both]
        cells += [f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", lower(other)]
        cells += [f"{own['expert']['value']:.2f}" for own in both]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parts(rows: list[Row]) -> list[str]:
    """Both parts of the gradient on their own."""
    lines = head(["router", "scale", "skip: experts' part", "router's", "GM: experts' part", "router's"])
    for row in rows:
        cells = [cell(row, name) for name in ("router", "scale")]
        cells += [f"{row[process][part]['value']:.2f}" for process in PROCESSES for part in ("expert", "router")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def head(titles: list[str]) -> list[str]:
    """Of a table."""
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def cell(row: Row, name: str) -> str:
    """A setting."""
    return router(row) if name == "router" else f"{row[name]:g}"


def router(row: Row) -> str:
    """The name of its kind."""
    kind = (row["informed"], row["favour"])
    return next((name for name, own in ROUTERS.items() if own == kind), f"{row['favour']:g} nats")


def pick(rows: list[Row], order: str, **wanted: Any) -> list[Row]:
    """The rows of the three kinds of routers with the given settings."""
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return [
        row
        for kind in ROUTERS.values()
        for row in sorted(found, key=lambda row: row[order])
        if (row["informed"], row["favour"]) == kind
    ]


def slope(rows: list[Row], process: str) -> float:
    """Exponent of the excess over 1 in the datapoints per expert, between the first and the last row."""
    first, last = rows[0], rows[-1]
    excess = [row[process]["all"]["value"] - 1 for row in (first, last)]
    return math.log(excess[1] / excess[0]) / math.log(last["ratio"] / first["ratio"])


def main() -> None:
    """Print all tables, and how many settings each process wins."""
    parser = argparse.ArgumentParser(description="Tables of the variance study.")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/variance_study.json"))
    parser.add_argument("--floored", type=Path, default=Path("benchmarks/results/variance_study_floored.json"))
    args = parser.parse_args()
    study, floored = (json.loads(path.read_text()) for path in (args.results, args.floored))
    rows = study["rows"]

    def show(*lines: str) -> None:
        print("\n".join([*lines, ""]))

    sharp = pick(rows, "scale", k=8, ratio=8, factor=1.0)
    loads = pick(rows, "ratio", k=8, scale=1.0, factor=1.0)
    loose = pick(rows, "ratio", k=8, scale=1.0, factor=1.5)
    room = pick(rows, "factor", k=8, ratio=8, scale=1.0)
    two = pick(rows, "scale", k=2)
    skew = [row for row in rows if (row["informed"], row["k"], row["scale"], row["factor"]) == (False, 8, 1, 1)]
    skew = [row for row in skew if row["ratio"] in (8, 32)]
    show(*table(sharp, ["router", "scale (nats)"], ["router", "scale"]))
    show(*table(loads, ["router", "datapoints per expert"], ["router", "ratio"]))
    show(
        *table(
            sorted(skew, key=lambda row: (row["ratio"], row["favour"])),
            ["datapoints per expert", "lead (nats)"],
            ["ratio", "favour"],
        )
    )
    show(*table(room, ["router", "capacity factor"], ["router", "factor"]))
    show(*table(loose, ["router", "datapoints per expert"], ["router", "ratio"]))
    show(*table(two, ["router", "scale (nats)"], ["router", "scale"]))
    show(*parts(two))
    show(*weights([*loads, *(row for row in sharp if row["scale"] == 4)]))
    heads = ["router", "datapoints per expert", "capacity factor", "scale (nats)"]
    chosen = [
        *sharp,
        *(row for row in loads if row["ratio"] in (2, 32)),
        *(row for row in room if row["factor"] == 1.5),
    ]
    show(*floors(chosen, floored["rows"], heads, ["router", "ratio", "factor", "scale"]))
    new = [row for row in floored["rows"] if not (row["informed"] and row["scale"] == 0)]
    print(f"with a floor of {floored['settings']['floor']:g}, lower, of {len(new)}:", dict(Counter(map(lower, new))))
    for process in PROCESSES:
        balanced = [row for row in loads if router(row) == "balanced" and row["ratio"] >= 8]
        print(process, f"excess as datapoints per expert to the power of {slope(balanced, process):.2f}, 8 to 32")
    rows = [row for row in rows if not (row["informed"] and row["scale"] == 0)]  # the same problems as balanced ones
    print(f"lower, of {len(rows)}:", dict(Counter(map(lower, rows))))
    for factor in sorted({row["factor"] for row in rows}):
        print(f"capacity factor {factor:g}:", dict(Counter(lower(row) for row in rows if row["factor"] == factor)))
    least = min(rows, key=lambda row: row["skip"]["all"]["value"])
    print("least of skip:", least["skip"]["all"], {name: least[name] for name in ("k", "ratio", "factor", "scale")})
    print(study["settings"], study["machine"], sep="\n")


if __name__ == "__main__":
    main()
