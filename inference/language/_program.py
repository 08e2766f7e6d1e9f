"""The program's commands, and what they print."""

import argparse
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from gumbel_moe._whole_file import write_json
from inference.language._checks import check
from inference.language._curves import read_run, read_runs, record, recorded, rows_of, table
from inference.language._devices import mesh_for, mesh_sizes
from inference.language._generate import generate, load_state, write
from inference.language._methods import METHODS
from inference.language._pictures import draw
from inference.language._run import NotFiniteError, train
from inference.language._settings import Settings, UnreadableError
from inference.shared.arguments import Parser, positive
from inference.shared.folder import sole_writer
from inference.shared.machine import machine, versions
from inference.shared.processes import is_first, join, wait_for_all
from inference.training.checkpoints import DamagedError
from models.data import Corpus, load_corpus

_COMPARED = "dense,switch,loss_free,quantile_balancing,base,skip,gumbel_matching"


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit code: 0, 1 after a number that is not finite, 128 and the signal's number after one."""
    parser, commands = _parsers()
    args = parser.parse_args(arguments)
    own = commands[args.command]
    try:
        return {"train": _train, "compare": _compare, "generate": _generate, "plot": _plot}[args.command](own, args)
    except UnreadableError as error:
        own.error(f"argument --out: {error}")


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="python -m inference.language", description="A language model with routed layers.")
    choices = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    told = {
        "train": "train the model with one router; checkpoints, exact resume",
        "compare": "train it with several routers, resumably, and print a table",
        "generate": "continue a text with a trained model",
        "plot": "draw the curves of the runs in a folder",
    }
    commands = {name: choices.add_parser(name, help=help, description=help) for name, help in told.items()}
    for name in ("train", "compare"):
        _add_devices(commands[name])
    Settings.add_to(commands["train"])
    commands["train"].add_argument("--resume", action="store_true", help="carry on with the run in --out")
    Settings.add_to(commands["compare"], without=("router", "seed"))
    commands["compare"].add_argument("--routers", default=_COMPARED, help=f"by commas (default: {_COMPARED})")
    commands["compare"].add_argument("--seeds", type=positive, default=1, help="runs of each, from 0 (default: 1)")
    generating = commands["generate"]
    generating.add_argument("--prompt", default="def ", help="what comes before (default: 'def ')")
    generating.add_argument("--bytes", type=positive, default=400, help="to write (default: 400)")
    generating.add_argument("--temperature", type=float, default=0.8, help="0: the most probable (default: 0.8)")
    generating.add_argument("--way", help="of routing (default: what suits the router best)")
    generating.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    for name, command in commands.items():
        held = "a run's folder" if name in ("train", "generate") else "folder of the runs"
        default = "results/language" if name in ("train", "generate") else "results/languages"
        command.add_argument("--out", type=Path, default=Path(default), help=f"{held} (default: {default})")
    return parser, commands


def _add_devices(parser: Parser) -> None:
    """On what a run is, on which its result does not depend."""
    parser.add_argument("--mesh", type=mesh_sizes, metavar="data=D,expert=E", help="of devices (default: one device)")
    several = "of several processes: HOST:PORT of the first, or 'auto' for what the scheduler's variables say"
    parser.add_argument("--coordinator", help=several)
    parser.add_argument("--num-processes", type=positive, help="how many there are")
    parser.add_argument("--process-id", type=int, help="which one this is, from 0")


def _join(parser: Parser, args: argparse.Namespace) -> None:
    try:
        join(args.coordinator, args.num_processes, args.process_id)
    except ValueError as error:
        parser.error(f"argument --coordinator: {error}")


def _train(parser: Parser, args: argparse.Namespace) -> int:
    path: Path = args.out / "run.json"
    _join(parser, args)
    if args.resume and not path.exists():
        parser.error(f"argument --resume: {args.out} holds no run")
    if not args.resume and path.exists():
        parser.error(f"{args.out} already holds a run; continue it with --resume or choose another --out")
    corpus = _corpus(parser, args, path)
    return _one_run(parser, args.out, Settings.given(args), corpus, args.mesh)


def _corpus(parser: Parser, args: argparse.Namespace, path: Path) -> Corpus:
    """The text that is asked for, or that the run began with."""
    began = Settings.read(path).corpus if path.exists() else None
    chosen = getattr(args, "corpus", began)
    try:
        return load_corpus(None if chosen is None else Path(chosen))
    except (OSError, ValueError) as error:
        parser.error(f"argument --corpus: {error}")


def _one_run(parser: Parser, folder: Path, given: dict, corpus: Corpus, sizes: tuple[int, int] | None) -> int:
    """Begin a run, or carry on with the one that is there if that is what is asked for."""
    path = folder / "run.json"
    settings = _settings(parser, path, given)
    try:
        check(settings, corpus)
        mesh = mesh_for(settings, sizes)
    except ValueError as error:
        parser.error(str(error))
    wait_for_all("every process has read what there is")
    with sole_writer(parser, folder) if is_first() else nullcontext():
        if is_first() and not path.exists():
            write_json(path, settings.as_json())
        try:
            ended = train(settings, corpus, folder, mesh)
        except NotFiniteError as error:
            print(f"{settings.router}: {error}", file=sys.stderr)
            return 1
        except DamagedError as error:
            parser.error(str(error))
    if ended is not None:
        if is_first():
            name = signal.Signals(ended).name
            print(f"{name}: saved; --resume --out {folder} carries on", file=sys.stderr)
        return 128 + ended
    if is_first():
        print(table(rows_of([read_run(folder)])))
    return 0


def _settings(parser: Parser, path: Path, given: dict) -> Settings:
    """Those that are asked for, or that the run began with, which must not be others."""
    if not path.exists():
        return replace(Settings(), **given)
    settings = Settings.read(path)
    _same(parser, "--resume", settings, replace(settings, **given), path.parent)
    return settings


def _same(parser: Parser, argument: str, settings: Settings, asked: Settings, folder: Path) -> None:
    for name, was in settings.as_json().items():
        if (value := getattr(asked, name)) != was:
            flag = name.replace("_", "-")
            parser.error(f"argument {argument}: the run in {folder} has --{flag} {was}, not {value}")


def _compare(parser: Parser, args: argparse.Namespace) -> int:
    names = [name.strip().replace("-", "_") for name in args.routers.split(",") if name.strip()]
    for name in names:
        if name not in METHODS:
            parser.error(f"argument --routers: unknown router {name!r}; choose from {', '.join(METHODS)}")
    _join(parser, args)
    corpus = _corpus(parser, args, args.out / "none")
    asked = replace(Settings(), **Settings.given(args))
    done = []
    for run in recorded(args.out / "results.json"):
        like_it = replace(asked, router=run.settings.router, seed=run.settings.seed)
        _same(parser, "--out", run.settings, like_it, args.out)
        done += [run.settings] if run.finished else []
    for seed in range(args.seeds):
        for name in names:
            folder = args.out / f"{name}-{seed}"
            this = replace(asked, router=name, seed=seed)
            if this in done and not folder.exists():
                continue  # its folder was removed, its results are kept
            code = _one_run(parser, folder, this.as_json(), corpus, args.mesh)
            if code > 1:
                return code
            if is_first():
                _write_results(args.out)
    if is_first():
        print("\n" + table(rows_of(read_runs(args.out))))
    return 0


def _write_results(folder: Path) -> None:
    """After every run, of all that the folder has and of all that the file had."""
    runs = read_runs(folder)
    results = {"rows": rows_of(runs), "runs": record(runs), "versions": versions(), "machine": machine()}
    write_json(folder / "results.json", results)


def _generate(parser: Parser, args: argparse.Namespace) -> int:
    if not (args.out / "run.json").exists():
        parser.error(f"argument --out: {args.out} holds no run")
    settings = read_run(args.out).settings
    method = settings.method
    way = args.way or method.best_way()
    if way not in method.ways():
        parser.error(f"argument --way: {settings.router} is routed by {', '.join(method.ways())}, not {way}")
    try:
        state = load_state(settings, args.out)
    except DamagedError as error:
        parser.error(str(error))
    if state is None:
        parser.error(f"argument --out: {args.out} holds no checkpoint yet")
    prompt = args.prompt.encode()
    told = generate(settings, state, prompt, args.bytes, way=way, temperature=args.temperature, seed=args.seed)
    write(prompt + told)
    return 0


def _plot(parser: Parser, args: argparse.Namespace) -> int:
    runs = read_runs(args.out)
    if not runs:
        parser.error(f"argument --out: {args.out} holds no run with metrics")
    print(f"wrote {draw(runs, args.out / 'curves.png')}")
    rows = rows_of(runs)
    if rows:
        print(table(rows))
    return 0
