"""Ways of training routers by the score in a language model: each setting's bits per byte after the same short run.

    python -m benchmarks.score_settings [--seed 0] [--steps 500] [--only NAME ...] [--runs results/score_settings]
                                        [--out docs/results/score_settings.json]

A small network (two layers of width 128, eight experts of 256) learns the Python standard library's source, as
`python -m inference.language train` does. A run that was interrupted goes on where it was, and what `--out` has is not
done again. Prints a Markdown table.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from gumbel_moe._whole_file import write_json

SMALL = "--layers 2 --width 128 --heads 4 --expert-width 256 --every 250"
BASE = "--sharpness 1 --score-scale 0.1 --critic-sees input"  # where a setting says nothing else
SKIP = "--router skip --sharpness 4 --score-scale 0.3"
SHARP = "--router gumbel-matching --sharpness 4 --score-scale 0.3"
EARLY = f"{SHARP} --critic-sees exit"
SETTINGS = {
    "dense": "--router dense",
    "switch": "--router switch",
    "switch, sharp x 4": "--router switch --sharpness 4",
    "base": "--router base",
    "base, sharp x 4": "--router base --sharpness 4",
    "skip": "--router skip",
    "skip, gated": "--router skip --gated",
    "skip, sharp x 4, score x .3": SKIP,
    "skip, sharp x 4, score x .3, early exit": f"{SKIP} --critic-sees exit",
    "skip, sharp x 4, score x .3, early exit, student": f"{SKIP} --critic-sees exit --student 32",
    "skip, gate alone, sharp x 4": "--router skip-uncorrected --sharpness 4",
    "matching": "--router gumbel-matching",
    "matching, gated": "--router gumbel-matching --gated",
    "matching, gate alone": "--router gumbel-matching-uncorrected",
    "matching, gate alone, sharp x 4": "--router gumbel-matching-uncorrected --sharpness 4",
    "matching, gate alone, sharp x 4, two draws": "--router gumbel-matching-uncorrected --sharpness 4 --draws 2",
    "matching, gated, sharp x 4": "--router gumbel-matching --gated --sharpness 4",
    "matching, gated, sharp x 16": "--router gumbel-matching --gated --sharpness 16",
    "matching, sharp x 4": "--router gumbel-matching --sharpness 4",
    "matching, sharp x 4, router as it began": "--router gumbel-matching --sharpness 4 --score-scale 0",
    "matching, sharp x 4, score x 1": "--router gumbel-matching --sharpness 4 --score-scale 1",
    "matching, sharp x 4, score x .3": SHARP,
    "the same, sharp x 8": f"{SHARP} --sharpness 8",
    "the same, slow router": f"{SHARP} --router-rate 3e-4",
    "the same, quick router": f"{SHARP} --router-rate 3e-3",
    "the same, entropy .01": f"{SHARP} --entropy 0.01",
    "the same, floor .1": f"{SHARP} --floor 0.1",
    "the same, credit .5": f"{SHARP} --credit 0.5",
    "the same, credit of the batch": f"{SHARP} --credit batch",
    "the same, half the text": f"{SHARP} --batch 8",
    "the same, twice the text": f"{SHARP} --batch 32",
    "the same, two draws": f"{SHARP} --draws 2",
    "the same, two draws of half the text": f"{SHARP} --draws 2 --batch 8",
    "the same, critic of 256": f"{SHARP} --critic 256",
    "the same, critic of 256, two draws": f"{SHARP} --critic 256 --draws 2",
    "the same, critic sees the byte": f"{SHARP} --critic-sees byte",
    "the same, critic sees an early exit": EARLY,
    "the same, early exit, critic of 256": f"{EARLY} --critic 256",
    "the same, early exit, two draws": f"{EARLY} --draws 2",
    "the same, early exit, student": f"{EARLY} --student 32",
    "the same, early exit, student, two draws": f"{EARLY} --student 32 --draws 2",
    "the same, early exit, sharp x 8": f"{EARLY} --sharpness 8",
    "the same, early exit, gated, score from half": f"{EARLY} --gated --score-from 250",
    "the same, through the router": f"{SHARP} --through-router",
    "the same, gated": f"{SHARP} --gated",
    "the same, gated, score from half": f"{SHARP} --gated --score-from 250",
}


def result(name: str, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """The end of a run, which is taken there first as far as it is not."""
    flags = [*shlex.split(f"{SMALL} {BASE} {SETTINGS[name]}"), "--steps", str(steps), "--seed", str(seed)]
    resume = ["--resume"] if (folder / "run.json").exists() else []
    command = [sys.executable, "-m", "inference.language", "train", *flags, *resume, "--out", str(folder)]
    subprocess.run(command, check=True)
    last = lines(folder / "evaluations.jsonl")[-1]
    trained = [line["bits_per_byte"] for line in lines(folder / "metrics.jsonl")[-100:]]
    ways = {key.partition("/")[0]: value for key, value in last.items() if key.endswith("/bits_per_byte")}
    found = {"bits_per_byte": ways, "in_training": sum(trained) / len(trained)}
    return {**found, "entropy": last.get("process/entropy"), "skipped": last.get("process/skipped")}


def lines(path: Path) -> list[dict[str, Any]]:
    """Of JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each setting."""
    ways = ("process", "argmax", "prices")
    lines = ["| setting | in training | " + " | ".join(ways) + " | entropy | skipped |", "|---|" + "---:|" * 6]
    for name in (name for name in SETTINGS if name in found):
        row = found[name]
        bits = row["bits_per_byte"]
        process = bits.get("process", bits.get("dense"))
        cells = [row["in_training"], process, bits.get("argmax"), bits.get("prices"), row["entropy"], row["skipped"]]
        told = ["" if cell is None else f"{cell:.3f}" for cell in cells]
        lines.append(f"| {name} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--only", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="NAME")
    parser.add_argument("--runs", type=Path, default=Path("results/score_settings"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results/score_settings.json"))
    args = parser.parse_args()
    asked = {"steps": args.steps, "seed": args.seed}
    kept = json.loads(args.out.read_text()) if args.out.exists() else {**asked, "found": {}}
    if {name: kept[name] for name in asked} != asked:
        parser.error(f"argument --out: {args.out} holds runs of other steps or another seed")
    for name in args.only:
        if name not in kept["found"]:
            folder = args.runs / "".join(letter if letter.isalnum() else "_" for letter in name)
            kept["found"][name] = result(name, folder, args.steps, args.seed)
            write_json(args.out, kept)
    print(table(kept["found"]))


if __name__ == "__main__":
    main()
