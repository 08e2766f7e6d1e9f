"""The program: all estimators, one after the other; what it prints."""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from gumbel_moe._whole_file import write_json
from inference.latent_routing._estimators import ESTIMATORS, Estimator
from inference.latent_routing._fit import Fit
from inference.latent_routing._pictures import draw_bounds, draw_latent_fit, draw_shares
from inference.latent_routing._summary import linear_regression, results_table, row_of
from inference.latent_routing._svi import Problem, compile_fit, problem, train_fit
from inference.shared.arguments import Parser, add_shared, positive
from inference.shared.folder import keep_earlier, sole_writer
from inference.shared.machine import machine, versions

_STEPS = 1000
_PICTURES = ("latent_routing_fit.png", "latent_routing_curves.png", "latent_routing_load.png")
_SETTINGS = ("seed", "starts", "steps", "particles", "images")


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit code: 0, or 130 when it was interrupted."""
    parser = _parser()
    args = parser.parse_args(arguments)
    args.steps = args.steps or _STEPS
    settings = {name: getattr(args, name) for name in _SETTINGS}
    path: Path = args.out / "latent_routing.json"
    if args.resume:
        _check_same(parser, path, settings)
    folder: Path = args.out / "latent_routing_fits"
    with sole_writer(parser, args.out), sole_writer(parser, folder):
        return _run(args, settings, path, folder)


def _run(args: argparse.Namespace, settings: dict[str, Any], path: Path, folder: Path) -> int:
    for file in () if args.resume else (path, *(args.out / name for name in _PICTURES)):
        if moved := keep_earlier(file):
            print(f"kept the earlier results as {moved}")

    given = problem(args.seed, args.starts, args.images)
    fits: list[Fit] = []
    interrupted = False
    try:
        for fit in _fits(args, given, folder):
            fits.append(fit)
            _write(path, settings, given, fits)
    except KeyboardInterrupt:
        interrupted = True
    if fits:
        print(results_table(_write(path, settings, given, fits), settings))
        _draw(args, given, fits)
    print(f"\nwrote {path}" if fits else "nothing had finished")
    if interrupted:
        print(f"interrupted; --resume --out {args.out} carries on with what had not finished", file=sys.stderr)
    return 130 if interrupted else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m inference.latent_routing",
        description="Fit a mixture with a latent expert for each datapoint by SVI, with and without a capacity.",
    )
    parser.add_argument(
        "--estimators",
        type=_estimators,
        default=list(ESTIMATORS.values()),
        metavar="A,B,...",
        help=f"which estimators (default: all): {', '.join(ESTIMATORS)}",
    )
    parser.add_argument("--starts", type=positive, default=8, help="starting points, each with its split (default: 8)")
    parser.add_argument("--particles", type=positive, default=2, help="draws in a step (default: 2)")
    parser.add_argument("--images", type=_num_images, default=800, help="to train on; the others test (default: 800)")
    parser.add_argument("--resume", action="store_true", help="keep what the run in --out has finished")
    add_shared(parser, "results")
    return parser


def _estimators(text: str) -> list[Estimator]:
    """Estimators by their names, with `_` or `-`, separated by commas; every one once."""
    names = list(dict.fromkeys(name.strip() for name in text.replace("-", "_").split(",") if name.strip()))
    for name in names or [""]:
        if name not in ESTIMATORS:
            raise argparse.ArgumentTypeError(f"unknown estimator {name!r}; choose from {', '.join(ESTIMATORS)}")
    return [ESTIMATORS[name] for name in names]


def _num_images(text: str) -> int:
    number = positive(text)
    if not 16 <= number <= 1700:
        raise argparse.ArgumentTypeError(f"must be from 16 to 1700, got {number}")
    return number


def _check_same(parser: Parser, path: Path, settings: dict[str, Any]) -> None:
    if not path.exists():
        parser.error(f"argument --resume: {path.parent} holds no run")
    began = json.loads(path.read_text())["settings"]
    for name, value in settings.items():
        if began[name] != value:
            parser.error(f"argument --resume: the run in {path.parent} has --{name} {began[name]}, not {value}")


def _fits(args: argparse.Namespace, given: Problem, folder: Path) -> Any:
    """One estimator after the other, saved as soon as it is there; while one is trained, the next is compiled."""
    files = {estimator.name: folder / f"{estimator.name}.npz" for estimator in args.estimators}
    pool = ThreadPoolExecutor(1)
    try:
        programs = {
            estimator.name: pool.submit(compile_fit, estimator, given, args.particles, args.steps)
            for estimator in args.estimators
            if not (args.resume and files[estimator.name].exists())
        }
        for name, file in files.items():
            if name not in programs:
                yield Fit.read(file)
                continue
            fit = train_fit(programs[name].result(), given, args.steps)
            keep_earlier(file)
            fit.save(file)
            print(f"{name}: {fit.seconds:.1f} s", flush=True)
            yield fit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _write(path: Path, settings: dict[str, Any], given: Problem, fits: list[Fit]) -> list[dict[str, Any]]:
    """The rows so far, on disk and back."""
    exact = next((fit.curves["test"][:, -1] for fit in fits if fit.router == "enumerated"), None)
    rows = [row_of(fit, ESTIMATORS[fit.router], settings, exact) for fit in fits]
    rows.append(linear_regression(given, settings, exact))
    write_json(path, {"rows": rows, "settings": settings, "versions": versions(), "machine": machine()})
    return rows


def _draw(args: argparse.Namespace, given: Problem, fits: list[Fit]) -> None:
    drawn = [fit for fit in fits if ESTIMATORS[fit.router].factor is not None and fit.kind == "weighted"]
    chosen = (drawn or fits)[-1]
    middle = int(np.argsort(chosen.curves["test"][:, -1])[(args.starts - 1) // 2])
    pictures = [
        draw_latent_fit(chosen, middle, args.seed + middle, args.images, args.out / _PICTURES[0]),
        draw_bounds(fits, args.out / _PICTURES[1]),
    ]
    if sampled := [fit for fit in fits if not ESTIMATORS[fit.router].enumerates]:
        fair = args.images / chosen.demand.shape[1]
        pictures.append(draw_shares(sampled, fair, args.out / _PICTURES[2]))
    for picture in pictures:
        print(f"wrote {picture}")
