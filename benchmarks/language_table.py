"""The table of routers in a language model: equal tokens, and equal time on a machine that does nothing else.

    python -m benchmarks.language_table [--results docs/results/language.json ...] [--steps 30] [--rounds 2]
                                        [--times docs/results/language_steps.json]

`--results` are one or several `results.json` of `python -m inference.language compare` with its default sizes, whose
runs may have shared the machine with others; a setting that is not that of the first file is told of. A step of each is
timed here, in runs of `--steps` steps one after the other, and kept in `--times`; what is there already is not timed
again. A router's bits per byte at equal time are those between its two evaluations around the step that it reaches
while the fastest is through with all steps. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json


def flags(settings: dict[str, Any], usual: dict[str, Any]) -> str:
    """The router, and what else it was asked for."""
    other = [name for name in usual if settings[name] != usual[name] and name not in ("router", "seed")]
    return " ".join([settings["router"], *(_flag(name, settings[name]) for name in other)])


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"  # a switch has no value


def step_seconds(asked: str, steps: int) -> float:
    """Median over a run's steps but the first few."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--router", *asked.split(), "--steps", str(steps), "--windows", "16", "--out", f"{folder}/run"]
        command = [sys.executable, "-m", "inference.language", "train", *given]
        subprocess.run(command, check=True, capture_output=True)
        settings = json.loads(Path(folder, "run", "run.json").read_text())
        lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    tokens = settings["batch"] * settings["context"]
    return float(np.median([tokens / json.loads(line)["tokens_per_second"] for line in lines[5:]]))


def measure(asked: list[str], path: Path, steps: int, rounds: int) -> dict[str, float]:
    """Of each the quicker of its rounds."""
    kept = json.loads(path.read_text()) if path.exists() else {"seconds": {}, "machine": machine()}
    missing = [each for each in asked if each not in kept["seconds"]]
    found = defaultdict(list)
    for _ in range(rounds):
        for each in tqdm(missing, desc="timing", disable=None):
            found[each].append(step_seconds(each, steps))
    if missing:
        kept["seconds"] |= {each: min(times) for each, times in found.items()}
        write_json(path, kept)
    return kept["seconds"]


def lines(results: dict[str, Any], usual: dict[str, Any], seconds: dict[str, float]) -> Iterator[str]:
    """Of Markdown, a row for each router and way."""
    for row in results["rows"]:
        own = [run for run in finished(results) if run["settings"]["router"] == row["router"]]
        asked = flags(own[0]["settings"], usual)
        share = min(seconds.values()) / seconds[asked]
        then = np.mean([reached(run, row["way"], share * run["settings"]["steps"]) for run in own])
        values = [row[name] for name in ("bits_per_byte", "spread", "in_training", "skipped", "max_violation")]
        formats = (".3f", ".3f", ".3f", ".3f", ".2f")
        cells = ["" if value is None else format(value, form) for value, form in zip(values, formats, strict=True)]
        cells += [f"{seconds[asked]:.2f} s", f"{then:.3f}"]
        name, _, told = asked.partition(" ")
        shown = name.replace("_", " ") + (f" `{told}`" if told else "")
        yield f"| {shown} | {row['way']} | {row['seeds']} | {' | '.join(cells)} |"


def finished(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that have taken and evaluated all their steps."""
    runs = results["runs"]
    return [run for run in runs if run["evaluations"] and run["evaluations"][-1]["step"] == run["settings"]["steps"]]


def reached(run: dict[str, Any], way: str, step: float) -> float:
    """Bits per byte after so many steps, between two evaluations."""
    evaluations = run["evaluations"]
    at = [line["step"] for line in evaluations]
    return float(np.interp(step, at, [line[f"{way}/bits_per_byte"] for line in evaluations]))


def main() -> None:
    """Time what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("docs/results/language.json")])
    parser.add_argument("--times", type=Path, default=Path("docs/results/language_steps.json"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    files = [json.loads(path.read_text()) for path in args.results]
    usual = files[0]["runs"][0]["settings"]
    asked = list(dict.fromkeys(flags(run["settings"], usual) for results in files for run in finished(results)))
    kept = measure(asked, args.times, args.steps, args.rounds)
    seconds = {each: kept[each] for each in asked}
    heads = ("bits per byte", "spread", "in training", "skipped", "violation", "step", "at equal time")
    print(f"| router | routed by | seeds | {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) + 1)}")
    for results in files:
        print(*lines(results, usual, seconds), sep="\n")


if __name__ == "__main__":
    main()
