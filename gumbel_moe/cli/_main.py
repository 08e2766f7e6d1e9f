"""From the words of a command line to its exit code."""

import sys
import traceback
from collections.abc import Sequence

from gumbel_moe import __version__
from gumbel_moe.cli import _check_options, _diagnose_options, _sample_options
from gumbel_moe.cli._exits import BAD_ARGUMENTS, CRASHED, INTERRUPTED, BadArgumentError
from gumbel_moe.cli._parser import Parser

_ABOUT = """\
Assignments of datapoints to experts of limited capacity, drawn from a distribution.

  diagnose   draw many gradients on a random mixture of experts: is the router's
             estimate unbiased, how noisy is it, and what does its report say?
  check      the same question of your own estimator, a function in your own module
  sample     draw assignments, weights and log-probabilities for your own logits
"""

_EXAMPLES = """\
examples:
  gumbel-moe diagnose --router skip --n 64 --experts 8 --capacity 8 --out report
  gumbel-moe check coins:problem
  gumbel-moe sample --router skip --logits logits.npy --capacity 8 --draws 100 --out draws.npz

`gumbel-moe COMMAND --help` explains a command, its options and its exit codes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    **Arguments:**

    - `arguments`: the words after the program's name; those of the process if None.

    **Returns:** the exit code: 0 for success, 1 where `diagnose` or `check` finds a bias, 2 for bad arguments (then one
    line on stderr says which), 3 after an error of the program itself (with a traceback), 130 when interrupted.
    """
    parser = Parser(prog="gumbel-moe", description=_ABOUT, epilog=_EXAMPLES)
    parser.add_argument("--version", action="version", version=f"gumbel_moe {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _diagnose_options.add(commands)
    _check_options.add(commands)
    _sample_options.add(commands)
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as end:  # help, the version, or an error that is told already
        return int(end.code or 0)
    try:
        return chosen.run(chosen)
    except BadArgumentError as error:
        print(f"{chosen.prog}: error: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except KeyboardInterrupt:
        print(f"{chosen.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        # Python's own exit code for it is 1, which would read as a bias.
        traceback.print_exc()
        return CRASHED
