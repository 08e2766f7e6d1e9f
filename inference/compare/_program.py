"""The program: all routers on all data, one after the other; what it prints."""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inference.compare._pictures import CURVES, LOAD, draw_curves, draw_load
from inference.compare._plan import Part, Plan
from inference.compare._references import logistic_regression, single_network
from inference.compare._results import Results, picture_names
from inference.compare._table import legend, results_table
from inference.compare._toy import TOY, draw_toy
from inference.shared.arguments import Parser, add_shared, positive
from inference.shared.folder import sole_writer
from inference.training.arguments import routers
from inference.training.methods import METHODS, Method
from inference.training.starts import Outcome, compile_starts, starting_points, train_starts
from inference.training.tasks import TASKS, Task
from models.data import load_digits_split


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit code: 0, or 130 when it was interrupted."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        problems = [_problem(TASKS[name](args.seed), args) for name in (TASKS if args.data == "all" else [args.data])]
    except ValueError as error:
        parser.error(f"argument --experts-per-datapoint: {error}")
    with sole_writer(parser, args.out):
        return _run(args, problems)


def _run(args: argparse.Namespace, problems: list[tuple[Task, list[Method]]]) -> int:
    results = Results(args.out, args.seed, [task.name for task, _ in problems])
    for moved in results.moved:
        print(f"kept the earlier results as {moved}")
    parts = [
        Part(task, len(methods) + (task.name == "digits"), args.starts or task.starts, args.steps or task.steps)
        for task, methods in problems
    ]
    plan = Plan(parts)
    print(plan, flush=True)
    interrupted = False
    try:
        for (task, methods), part in zip(problems, parts, strict=True):
            _compare(task, methods, args, results, lambda part=part: plan.finished(part))
    except KeyboardInterrupt:
        interrupted = True
    _tell(results)
    if interrupted:
        print("interrupted: what had finished is kept", file=sys.stderr)
    return 130 if interrupted else 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m inference.compare",
        description="Train every router from the same starting points; print a table, write results.json and pictures.",
    )
    parser.add_argument("--data", choices=[*TASKS, "all"], default="all", help="what to train on (default: all)")
    parser.add_argument(
        "--routers",
        type=routers,
        metavar="A,B,...",
        help=f"which routers (default: those that the data tell apart): {', '.join(METHODS)}; or a group of "
        "them: routers, estimators, all",
    )
    parser.add_argument(
        "--experts-per-datapoint",
        type=positive,
        metavar="M",
        help="how many experts each datapoint has, in batches M times smaller: as many evaluations (default: one)",
    )
    parser.add_argument("--starts", type=positive, help="starting points (default: what suits the data)")
    add_shared(parser, "results/compare")
    return parser


def _compare(
    task: Task, methods: list[Method], args: argparse.Namespace, results: Results, finished: Callable[[], str]
) -> None:
    """Train all routers, then the references, on one problem; draw whatever has finished, also when interrupted."""
    try:
        _train_all(task, methods, args, results, finished)
        if task.name == "digits":
            _train_all(
                single_network(TASKS[task.name](args.seed)),
                [METHODS["independent"]],
                args,
                results,
                finished,
                reference="single_network",
            )
            results.add_row(logistic_regression(load_digits_split(args.seed)))
    finally:
        for path, caption in _draw(task, results).items():
            results.captions[path.name] = caption
            print(f"wrote {path}: {caption}")
        results.write()


def _problem(task: Task, args: argparse.Namespace) -> tuple[Task, list[Method]]:
    """The problem and its methods, with as many experts for every datapoint as asked for."""
    methods, number = args.routers or [METHODS[name] for name in task.methods], args.experts_per_datapoint
    if number is None:
        return task, methods
    return task.with_experts(number), [method.with_experts(number) for method in methods]


def _train_all(
    task: Task,
    methods: list[Method],
    args: argparse.Namespace,
    results: Results,
    finished: Callable[[], str],
    reference: str | None = None,
) -> None:
    """An outcome for every method, saved as soon as it is there; while one is trained, the next is compiled."""
    start = starting_points(task, args.seed, args.starts or task.starts)
    pool = ThreadPoolExecutor(1)
    try:
        programs = [pool.submit(compile_starts, task, method, start) for method in methods]
        for method, program in zip(methods, programs, strict=True):
            outcome = Outcome(task.name, reference or method.name, "reference" if reference else method.kind)
            try:
                train_starts(program.result(), outcome, args.steps or task.steps)
            finally:
                results.add(task, outcome)
            took = f"{outcome.compile_seconds:.1f} s to compile, {outcome.run_seconds:.1f} s to train"
            print(f"{task.name} {outcome.router}: {took}{finished()}", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _draw(task: Task, results: Results) -> dict[Path, str]:
    """The pictures of one problem, of the routers that have finished, with what they show."""
    rows = {row["router"]: row for row in results.rows if row["data"] == task.name}
    outcomes = [outcome for outcome in results.outcomes if outcome.data == task.name and outcome.finished]
    routers = [outcome for outcome in outcomes if outcome.kind != "reference"]
    if not routers:
        return {}
    references = {name: row["true_loss_median"] for name, row in rows.items() if row["kind"] == "reference"}
    curves, load, fit = (results.folder / name for name in picture_names(task.name))
    pictures = {
        draw_curves(routers, references, task.evaluation.unit, curves): CURVES,
        draw_load(task, routers, load): LOAD,
    }
    if task.name == "toy":
        chosen = [rows[outcome.router] for outcome in routers]
        pictures[draw_toy(task, routers, chosen, fit)] = TOY
    return pictures


def _tell(results: Results) -> None:
    for data in dict.fromkeys(row["data"] for row in results.rows):
        print("\n" + results_table(data, results.rows))
    if results.rows:
        print("\n" + legend(results.rows))
    print(f"\nwrote {results.folder / 'results.json'}")
