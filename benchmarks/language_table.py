"""The table of routers in a language model: equal tokens, and equal time on a machine that does nothing else.

    python -m benchmarks.language_table [--results docs/results/language.json] [--steps 30] [--rounds 2]
                                        [--times docs/results/language_steps.json]

`--results` is the `results.json` of `python -m inference.language compare` with its default sizes, whose runs may have
shared the machine with others. What a step of each takes is therefore measured here, in runs of `--steps` steps one
after the other, and kept in `--times`; what is there already is not measured again. A router's bits per byte at equal
time are those between its two evaluations around the step that it reaches while the fastest is through with all steps.
Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks._machine import machine
from gumbel_moe._whole_file import write_json


def step_seconds(router: str, steps: int) -> float:
    """Median over a run's steps but the first few."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--router", router, "--steps", str(steps), "--windows", "16", "--out", f"{folder}/run"]
        command = [sys.executable, "-m", "inference.language", "train", *given]
        subprocess.run(command, check=True, capture_output=True)
        settings = json.loads(Path(folder, "run", "run.json").read_text())
        lines = Path(folder, "run", "metrics.jsonl").read_text().splitlines()
    tokens = settings["batch"] * settings["context"]
    return float(np.median([tokens / json.loads(line)["tokens_per_second"] for line in lines[5:]]))


def measure(routers: list[str], path: Path, steps: int, rounds: int) -> dict[str, float]:
    """Of each router the quicker of its rounds."""
    kept = json.loads(path.read_text()) if path.exists() else {"seconds": {}, "machine": machine()}
    missing = [router for router in routers if router not in kept["seconds"]]
    found = defaultdict(list)
    for _ in range(rounds):
        for router in tqdm(missing, desc="timing", disable=None):
            found[router].append(step_seconds(router, steps))
    if missing:
        kept["seconds"] |= {router: min(times) for router, times in found.items()}
        write_json(path, kept)
    return kept["seconds"]


def reached(run: dict[str, Any], way: str, step: float) -> float:
    """Bits per byte after so many steps, between two evaluations."""
    evaluations = run["evaluations"]
    at = [line["step"] for line in evaluations]
    return float(np.interp(step, at, [line[f"{way}/bits_per_byte"] for line in evaluations]))


def main() -> None:
    """Time what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("docs/results/language.json"))
    parser.add_argument("--times", type=Path, default=Path("docs/results/language_steps.json"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    routers = list(dict.fromkeys(row["router"] for row in results["rows"]))
    seconds = measure(routers, args.times, args.steps, args.rounds)
    quickest = min(seconds[router] for router in routers)
    heads = ("bits per byte", "spread", "in training", "skipped", "violation", "step", "at equal time")
    print(f"| router | routed by | seeds | {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) + 1)}")
    for row in results["rows"]:
        router, way = row["router"], row["way"]
        own = [run for run in results["runs"] if run["settings"]["router"] == router]
        own = [run for run in own if run["evaluations"] and run["evaluations"][-1]["step"] == run["settings"]["steps"]]
        then = np.mean([reached(run, way, run["settings"]["steps"] * quickest / seconds[router]) for run in own])
        values = [
            *(row[name] for name in ("bits_per_byte", "spread", "in_training", "skipped", "max_violation")),
            seconds[router],
            then,
        ]
        formats = (".3f", ".3f", ".3f", ".3f", ".2f", ".2f", ".3f")
        cells = ["" if value is None else format(value, form) for value, form in zip(values, formats, strict=True)]
        cells[5] += " s"
        print(f"| {router.replace('_', ' ')} | {way} | {row['seeds']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
