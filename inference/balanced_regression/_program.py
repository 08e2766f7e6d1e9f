"""The program: four models on a few draws of the labelled wines; what it prints."""

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from arviz_base import from_dict
from arviz_stats import ess, rhat  # pyright: ignore[reportPrivateImportUsage]
from tqdm import tqdm

from gumbel_moe._whole_file import write_json
from gumbel_moe.diagnostics import assignment_report
from inference.balanced_regression._pictures import draw_slopes, draw_wines
from inference.balanced_regression._samplers import MODELS, Samples, fit
from inference.shared.arguments import Parser, add_shared, positive
from inference.shared.folder import keep_earlier, sole_writer
from inference.shared.machine import versions
from models.data import Wines, load_wines

_DRAWS = "balanced_regression.nc"
_PICTURES = ("wines_co_assignment.png", "wines_fit.png", "wines_slopes.png")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit code: 0, or 130 when it was interrupted."""
    parser = _parser()
    args = parser.parse_args(arguments)
    with sole_writer(parser, args.out):
        return _run(parser, args)


def _run(parser: Parser, args: argparse.Namespace) -> int:
    path = args.out / "balanced_regression.json"
    settings = {name: getattr(args, name) for name in ("seed", "chains", "draws", "rounds", "every")}
    rows = _earlier(parser, path, settings) if args.resume else []
    for file in () if args.resume else (path, *(args.out / name for name in (_DRAWS, *_PICTURES))):
        if moved := keep_earlier(file):
            print(f"kept the earlier results as {moved}")
    fits: dict[str, Samples] = {}
    wanted = list(product(range(args.splits), MODELS))
    interrupted = False
    try:
        for split, model in tqdm(wanted, unit="fit", dynamic_ncols=True):
            done = any((row["split"], row["method"]) == (split, model) for row in rows)
            if done and split < args.splits - 1:
                continue
            # The last split's draws are what the pictures show: they are not kept on disk, so it is fitted as a whole.
            wines = load_wines(args.seed + split, every=args.every)
            start = None if model == MODELS[0] else _start(fits, wines, args)
            fits[model] = fit(model, wines, start, args.seed, args.chains, args.draws, args.rounds)
            if not done:
                rows.append({"split": split, "method": model, **_row_of(fits[model], wines)})
                write_json(path, {"settings": settings, "versions": versions(), "rows": rows})
            if model == MODELS[-1] and split == args.splits - 1:
                _draw(args.out, wines, fits)
            elif model == MODELS[-1]:
                fits.clear()
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: what had finished is kept; go on with --resume", file=sys.stderr)
    print(_table(rows))
    return 130 if interrupted else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m inference.balanced_regression",
        description="Fit wines of three cultivars with and without known group sizes; print a table, write pictures.",
    )
    parser.add_argument("--splits", type=positive, default=3, help="draws of the labelled wines (default: 3)")
    parser.add_argument("--chains", type=positive, default=4, help="chains of each fit (default: 4)")
    parser.add_argument("--draws", type=positive, default=1000, help="kept draws of each chain (default: 1000)")
    parser.add_argument("--rounds", type=positive, default=10, help="rounds of an assignment's update (default: 10)")
    parser.add_argument("--every", type=positive, default=1, help="use every so-manieth unlabelled wine (default: 1)")
    parser.add_argument("--resume", action="store_true", help="keep the finished fits in the folder, and go on")
    add_shared(parser, "results/wines", trains=False, holds="folder")
    return parser


def _start(fits: dict[str, Samples], wines: Wines, args: argparse.Namespace) -> Samples:
    """The fit to the labelled wines, made again if this run did not make it."""
    if MODELS[0] not in fits:
        fits[MODELS[0]] = fit(MODELS[0], wines, None, args.seed, args.chains, args.draws, args.rounds)
    return fits[MODELS[0]]


def _row_of(samples: Samples, wines: Wines) -> dict[str, Any]:
    """How well memberships are told, and how well the chains have met."""
    membership = np.asarray(samples["membership"])
    share = membership.mean(axis=(0, 1))
    right = share[np.arange(len(wines.truth)), wines.truth]
    sizes = membership.sum(axis=2, dtype=np.float64)
    lines = {name: np.asarray(samples[name]) for name in ("intercept", "slope", "noise")}
    posterior = from_dict({"posterior": lines})["posterior"].to_dataset()
    return {
        "wines": len(wines.truth),
        "accuracy": float(np.mean(share.argmax(axis=1) == wines.truth)),
        # No probability is measured finer than with half a draw.
        "log_prob": float(np.mean(np.log(np.maximum(right, 0.5 / np.prod(membership.shape[:2]))))),
        "sizes": sizes.mean(axis=(0, 1)).round(2).tolist(),
        "sizes_sd": sizes.std(axis=(0, 1)).round(2).tolist(),
        "true_sizes": list(wines.sizes),
        "slope_sd": float(np.mean(lines["slope"].std(axis=(0, 1)))),
        "r_hat": max(float(x.max()) for x in rhat(posterior).values()),
        "ess": min(float(x.min()) for x in ess(posterior).values()),
    }


def _draw(folder: Path, wines: Wines, fits: dict[str, Samples]) -> None:
    posterior = {name: np.asarray(x) for name, x in fits["balanced"].items() if name != "membership"}
    names = [f"wine {i}" for i in range(len(wines.truth))]
    report = assignment_report(posterior, "z", len(wines.sizes), datapoints=names)
    co_assignment, lines, slopes = (folder / name for name in _PICTURES)
    report.save(folder / _DRAWS)
    report.plot(co_assignment, groups=wines.truth)
    draw_wines(wines, fits, lines)
    draw_slopes(report.data, slopes)
    print(f"wrote {folder / _DRAWS} and three pictures")


def _earlier(parser: Parser, path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    kept = json.loads(path.read_text())
    if kept["settings"] != settings:
        parser.error(f"argument --resume: {path} was made with {kept['settings']}, not {settings}")
    return kept["rows"]


def _table(rows: list[dict[str, Any]]) -> str:
    """One line per fit: accuracy, mean log-probability of the true cultivar, expected sizes, and how chains met."""
    lines = ["split  model                    accuracy  log-prob.  expected sizes       r-hat   ess"]
    for row in rows:
        sizes = " ".join(f"{size:5.1f}" for size in row["sizes"])
        lines.append(
            f"{row['split']:5d}  {row['method']:23s}  {row['accuracy']:8.1%}  {row['log_prob']:9.3f}  {sizes:19s}"
            f"  {row['r_hat']:5.2f}  {row['ess']:4.0f}"
        )
    return "\n".join(lines)
