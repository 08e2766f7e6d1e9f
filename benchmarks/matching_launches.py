"""Kernels that the search for a matching launches: rounds of each of its loops, times the kernels of a round.

    python -m benchmarks.matching_launches [--sizes 4096x64,16384x64] [--families random,skewed,clustered] [--seed 0]

That product is what an accelerator pays besides the arithmetic. It is counted on a CPU, as a stand-in: loops and
branches are run one round after another from Python, and a round's kernels are the instructions of its compiled program
that compute or move something. Prints a Markdown table, or all loops of every problem with `--loops`.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from benchmarks.matching_problems import family
from gumbel_moe.matching._solve import solve_one

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}


class Loop(NamedTuple):
    """A loop or branch by its place in the program, and the kernels of one round."""

    path: str
    kernels: int


class Launches:
    """Runs a program and counts, for every loop and branch, rounds and kernels."""

    def __init__(self) -> None:
        self.rounds: Counter[Loop] = Counter()
        self._kernels: dict[int, int] = {}
        self._compiled: dict[int, Any] = {}

    @property
    def total(self) -> int:
        """Kernels of everything that was run."""
        return sum(loop.kernels * times for loop, times in self.rounds.items())

    def run(self, path: str, program: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of `program`, one round of `path`."""
        self.rounds[Loop(path, self._static(program))] += 1
        return self._evaluate(path, program, inputs)

    def _static(self, program: core.ClosedJaxpr) -> int:
        """Kernels of the straight-line part of a program."""
        if id(program) not in self._kernels:
            shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in program.jaxpr.invars]
            text = jax.jit(core.jaxpr_as_fun(program)).lower(*shapes).compile().as_text() or ""
            entry = text[text.index("\nENTRY") :]
            codes = re.findall(r"^\s+(?:ROOT )?\S+ = .*? ([a-z][\w-]*)\(", entry, flags=re.M)
            self._kernels[id(program)] = sum(code not in _FREE for code in codes)
            self._compiled[id(program)] = program  # keeps the number from being given to another one
        return self._kernels[id(program)]

    def _evaluate(self, path: str, program: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
        values: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
        values |= zip(program.jaxpr.invars, inputs, strict=True)
        for index, equation in enumerate(program.jaxpr.eqns):
            given = [x.val if isinstance(x, core.Literal) else values[x] for x in equation.invars]
            place = f"{path}/{equation.primitive.name}{index}"
            values |= zip(equation.outvars, self._step(place, equation, given), strict=True)
        return [x.val if isinstance(x, core.Literal) else values[x] for x in program.jaxpr.outvars]

    def _step(self, path: str, equation: Any, given: list[Any]) -> list[Any]:
        params = equation.params
        match equation.primitive.name:
            case "while":
                first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
                state = given[second:]
                while self.run(f"{path}:test", params["cond_jaxpr"], [*given[:first], *state])[0]:
                    state = self.run(f"{path}:body", params["body_jaxpr"], [*given[first:second], *state])
                return state
            case "cond":
                chosen = params["branches"][int(jnp.clip(given[0], 0, len(params["branches"]) - 1))]
                return self.run(path, chosen, given[1:])
            case "scan":
                return self._scan(path, params, given)
        inner = params.get("jaxpr") or params.get("call_jaxpr") or params.get("call")
        if isinstance(inner, core.ClosedJaxpr):
            return self._evaluate(path, inner, given)  # its kernels are among those of the program around it
        out = equation.primitive.bind(*given, **params)
        return list(out) if equation.primitive.multiple_results else [out]

    def _scan(self, path: str, params: dict[str, Any], given: list[Any]) -> list[Any]:
        consts, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
        state, stacked = given[consts:carried], []
        order = range(params["length"])
        for step in reversed(order) if params["reverse"] else order:
            out = self.run(path, params["jaxpr"], [*given[:consts], *state, *(x[step] for x in given[carried:])])
            state, rest = out[: params["num_carry"]], out[params["num_carry"] :]
            stacked.append(rest)
        if params["reverse"]:
            stacked.reverse()
        return [*state, *(jnp.stack(column) for column in zip(*stacked, strict=True))]


def count(scores: Any, capacity: int) -> Launches:
    """What the search for one matching launches: what accelerators run, where a CPU has the compiled solver."""
    launches = Launches()
    places = jnp.full(scores.shape[1], capacity, jnp.int32)
    full = capacity * scores.shape[1] == scores.shape[0]
    program = jax.make_jaxpr(lambda s: solve_one(s, places, full=full))(scores)
    launches.run("", program, [scores])
    return launches


def main() -> None:
    """Print a row per problem."""
    parser = argparse.ArgumentParser(description="Kernel launches of the search for a matching.")
    parser.add_argument("--sizes", default="4096x64,16384x64", help="n x k, separated by commas")
    parser.add_argument("--families", default="random,skewed,clustered")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loops", action="store_true", help="all loops of every problem")
    args = parser.parse_args()
    print("| n x k | scores | launches | the costliest loops: rounds x kernels a round |\n|---|---|---|---|")
    for size in args.sizes.split(","):
        n, k = (int(part) for part in size.split("x"))
        for name in args.families.split(","):
            found = count(jnp.asarray(family(name, n, k, args.seed)), n // k)
            rows = sorted(found.rounds.items(), key=lambda row: -row[0].kernels * row[1])
            shown = rows if args.loops else rows[:4]
            loops = ", ".join(f"{times} x {loop.kernels} ({loop.path or 'once'})" for loop, times in shown)
            print(f"| {size} | {name} | {found.total:,} | {loops} |", flush=True)


if __name__ == "__main__":
    main()
