"""What `gumbel-moe sample` can be told."""

import argparse
from pathlib import Path
from typing import Any

from gumbel_moe._router_table import names
from gumbel_moe.cli._parser import add_experts_per_datapoint, add_floor, add_out, add_router, places, whole

_ABOUT = """\
Draw assignments of n datapoints to k experts for your own logits.

The logits are a .npy file with one matrix (n, k) of float32 or float64, which is also the
precision of the computation; -inf forbids an expert for a datapoint. Files with pickled
objects are not read.
"""

_END = """\
writes a .npz file with, for D draws:
  assignment      (D, n) int32: the expert that every datapoint drew
  kept            (D, n) bool: false where skip left the datapoint out for lack of room
  weight          (D, n): importance weights, 0 where skipped; the mean over draws of
                  weight[:, i] * (assignment[:, i] == j) tends to softmax(logits[i])[j]
  log_prob        (D,) log-probability of the whole draw, in nats, with its floor: of who
                  drew what and who was kept (skip), of the assignment (gumbel_matching),
                  or the sum over datapoints (independent)
  log_prob_error  (D,) its standard error in nats; 0 where it is exact to rounding
  capacity        (k,) int32; not used by independent
  seed            the seed; draw number i is the same whatever D is

exit codes:
  0    written
  2    bad arguments, a file that cannot be read or written: one line on stderr says what
  3    the program itself failed, with a traceback
  130  interrupted with Ctrl-C
Whatever the exit code but 0, an older output file is as it was. A symbolic link is followed;
a folder, a device, a pipe (so /dev/stdout too) or the file of --logits is refused, and a file
that is there already needs --force.

example:
  python -c "import numpy as np; np.save('logits.npy', np.random.randn(64, 8))"
  gumbel-moe sample --router skip --logits logits.npy --capacity 8 --draws 1000 --out draws.npz
"""


def add(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("sample", help="draw assignments for your logits", description=_ABOUT, epilog=_END)
    option = parser.add_argument
    add_router(parser, names("weighted"))
    option("--logits", type=Path, required=True, metavar="FILE.npy", help="a matrix of n rows and k columns")
    option(
        "--capacity", type=places, help="places of every expert, or one number for each: 8,8,4 (default: a fair share)"
    )
    add_floor(parser, 0.0, "0: the process of the logits themselves")
    add_experts_per_datapoint(
        parser, "only 1: more have no log-probability here (routers in Python and diagnose take more)"
    )
    option("--draws", type=whole(1, 10_000_000), default=1, help="how many assignments (default: 1)")
    option("--seed", type=whole(0), default=0, help="of the draws (default: 0)")
    add_out(parser, "FILE.npz", "where to write")
    parser.set_defaults(run=_run, prog=parser.prog)


def _run(options: argparse.Namespace) -> int:
    from gumbel_moe.cli._sample import sample  # JAX takes a second to import, which help need not wait for

    return sample(options)
