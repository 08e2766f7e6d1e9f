"""What `gumbel-moe diagnose` can be told."""

import argparse
from pathlib import Path
from typing import Any

from gumbel_moe._router_table import names
from gumbel_moe.cli._parser import (
    add_draws,
    add_experts_per_datapoint,
    add_floor,
    add_out,
    add_router,
    places,
    scale,
    whole,
)

_ABOUT = """\
Is the gradient of a router unbiased?

Makes a random mixture of linear experts with a linear router, small enough that the
exact gradient of its mean loss is known by enumeration. Then draws the router's gradient
estimate many times and tests its mean, coordinate by coordinate and as a whole
(check_unbiased), tests its weights (routing_report), and measures its variance beside
that of independent draws (compare_variance).

With --logits the gradient is in your own logits, a .npy file with one matrix (n, k), whose
precision is that of the computation; -inf forbids an expert. The experts stay random.

Routers that draw (independent, skip, gumbel_matching) should pass. Those that are biased
by design (switch, base, sinkhorn, loss_free, quantile_balancing; each with its own gated
loss), and skip or gumbel_matching with `--estimator uncorrected`, should not.
"""

_END = """\
writes into DIR, over what is there only with --force:
  report.html   everything to look at, in one file with its pictures
  report.json   passed, max_z, detectable_bias, false_fail_rate, variance, ... and the
                arguments and versions; the same arguments give the same bits (no timings)
  draws.nc      kept draws, their exact values, weights and loads, for ArviZ (netCDF)

exit codes:
  0    no bias found; an unbiased router is failed with probability --false-fail-rate
  1    bias found
  2    bad arguments, or a package is missing: one line on stderr says what
  3    the program itself failed, with a traceback
  130  interrupted with Ctrl-C

example, about half a minute; the second must fail:
  gumbel-moe diagnose --router skip --n 64 --experts 8 --capacity 8 --out report
  gumbel-moe diagnose --router skip --estimator uncorrected --out report-uncorrected
  gumbel-moe diagnose --router skip --logits logits.npy --capacity 8 --out report-logits

Gumbel-Matching without spare places has weights with a heavy tail where experts have
few places; with one place each their variance is infinite, and no number of draws helps.
"""


def add(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("diagnose", help="test a router's gradient for bias", description=_ABOUT, epilog=_END)
    option = parser.add_argument
    add_router(parser, (*names("weighted"), *names("biased", one_expert=True)))
    option("--logits", type=Path, metavar="FILE.npy", help="your own logits, n rows and k columns, for a mixture's")
    option("--n", type=whole(1, 100_000), help="datapoints (default: 64)")
    option("--experts", type=whole(1, 1024), help="experts (default: 8)")
    option(
        "--capacity", type=places, help="places of every expert, or one number for each: 8,8,4 (default: a fair share)"
    )
    add_experts_per_datapoint(parser, "how many experts each datapoint has (default: one)")
    option("--scale", type=scale, help="standard deviation of the logits, in nats (default: 1)")
    option(
        "--estimator",
        choices=("corrected", "uncorrected"),
        default="corrected",
        help="with its importance weights, or with the weight 1 for all (default: corrected)",
    )
    add_floor(parser, None, "the router's, 0.1 for gumbel_matching and 0 for others")
    add_draws(parser, "how likely an unbiased router may fail", "of the mixture and of the draws")
    add_out(parser, "DIR", "folder for the report, made if it is not there")
    parser.set_defaults(run=_run, prog=parser.prog)


def _run(options: argparse.Namespace) -> int:
    from gumbel_moe.cli._diagnose import diagnose  # JAX takes a second to import, which help need not wait for

    return diagnose(options)
