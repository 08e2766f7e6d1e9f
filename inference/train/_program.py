"""The program: a run from its beginning or its last checkpoint; what it prints."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from gumbel_moe._whole_file import write_json
from inference.shared.arguments import Parser, add_shared, positive
from inference.shared.folder import sole_writer
from inference.training.arguments import router
from inference.training.checkpoints import Checkpoints, DamagedError
from inference.training.journal import Journal
from inference.training.loop import advance_and_evaluate, first_state
from inference.training.methods import METHODS, Method
from inference.training.tasks import TASKS, Task

_EVERY = 250


def main(arguments: list[str] | None = None) -> int:
    """Run the program; the exit code: 0, or 130 when it was interrupted."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.resume and not (args.out / "run.json").exists():
        parser.error(f"argument --resume: {args.out} holds no run")
    with sole_writer(parser, args.out):
        return _run(parser, args)


def _run(parser: Parser, args: argparse.Namespace) -> int:
    _prepare(parser, args)
    task = TASKS[args.data](args.seed)
    steps = args.steps or task.steps
    try:
        _train(task, args.router, args, steps)
    except DamagedError as error:
        parser.error(f"argument --resume: {error}")
    except KeyboardInterrupt:
        print(f"interrupted; --resume --out {args.out} carries on from the last checkpoint", file=sys.stderr)
        return 130
    last = Journal(args.out / "metrics.jsonl").last()
    reached = ", ".join(f"{name} {value}" for name, value in _shown(last).items())
    print(f"{args.data} with {args.router.name}, {last['step']} steps: {reached}; all in {args.out}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m inference.train",
        description="Train one model with one router; metrics as JSON lines, checkpoints, exact resume.",
    )
    parser.add_argument("--data", choices=list(TASKS), required=True, help="what to train on")
    parser.add_argument("--router", type=router, required=True, metavar="NAME", help=f"one of {', '.join(METHODS)}")
    parser.add_argument("--every", type=positive, help="steps between metrics and checkpoints (default: 250)")
    parser.add_argument("--resume", action="store_true", help="carry on with the run in --out")
    add_shared(parser, "results/train")
    return parser


def _prepare(parser: Parser, args: argparse.Namespace) -> None:
    """Begin a new run, or see that the one there is the run to resume; one clear line where it is not."""
    path: Path = args.out / "run.json"
    began: dict[str, Any] = {}
    if args.resume:
        began = json.loads(path.read_text())
        args.every = args.every or began["every"]
    elif path.exists():
        parser.error(f"{args.out} already holds a run; continue it with --resume or choose another --out")
    args.every = args.every or _EVERY
    asked = {"data": args.data, "router": args.router.name, "seed": args.seed, "every": args.every}
    if not args.resume:
        write_json(path, asked)
        return
    for name, value in asked.items():
        if began[name] != value:
            parser.error(f"argument --resume: the run in {args.out} has --{name} {began[name]}, not {value}")


def _train(task: Task, method: Method, args: argparse.Namespace, steps: int) -> None:
    """From the last checkpoint, if there is one, to `steps`."""
    journal = Journal(args.out / "metrics.jsonl")
    for_model, for_steps = jax.random.split(jax.random.key(args.seed))
    fresh = first_state(task, method, jax.jit(task.model)(for_model), for_steps)
    run = jax.jit(lambda state, n: advance_and_evaluate(task, method, state, n))
    with Checkpoints(args.out / "checkpoints") as checkpoints:
        state = checkpoints.latest(fresh)
        for step, place in checkpoints.moved.items():
            print(
                f"the checkpoint of step {step} is damaged; it is now {place}, and an earlier one is used",
                file=sys.stderr,
            )
        journal.drop_after(-1 if state is None else int(state.step))
        if state is None:
            state, metrics = run(fresh, jnp.int32(0))
            journal.add(0, metrics)
            checkpoints.save(state)
        at = int(state.step)
        with tqdm(total=steps, initial=at, desc=f"{task.name} {method.name}", unit="step", disable=None) as bar:
            while at < steps:
                # Always at multiples of `every`, wherever the run was taken up.
                there = min(steps, (at // args.every + 1) * args.every)
                state, metrics = run(state, jnp.int32(there - at))
                bar.set_postfix(_shown(journal.add(there, metrics)))
                checkpoints.save(state)
                bar.update(there - at)
                at = there


def _shown(line: dict[str, Any]) -> dict[str, str]:
    known = {name: line.get(name) for name in ("true_loss", "own_loss", "accuracy")}
    return {name: f"{value:.4g}" for name, value in known.items() if value is not None}
