"""What `gumbel-moe check` can be told."""

import argparse
import re
from typing import Any

from gumbel_moe.cli._parser import add_draws, add_out
from gumbel_moe.cli._target import NAME

_ABOUT = """\
Is your own gradient estimator unbiased, and how small a bias would have been found?

MODULE:FUNCTION names a function without arguments of a module in this folder, or of one that
is installed. It returns what check_unbiased takes, a pair of two things:

  estimate   a function from a JAX key to a pytree of gradients; or a dict of such functions,
             of which each gets its verdict
  exact      the gradient that its mean should be, as a pytree of the same structure, or a
             function without arguments that computes it. None where it is not known: then
             estimate is a pair of functions whose means should agree
"""

_END = """\
writes into DIR, if --out names one, and over what is there only with --force:
  report.html   everything to look at, in one file with its pictures
  report.json   passed, max_z, detectable_bias, ... of every estimator; no timings
  draws.nc      kept draws and the exact gradient, for ArviZ (netCDF)

exit codes:
  0    no bias found; unbiased estimators are failed with probability --false-fail-rate
  1    bias found
  2    bad arguments, no such module or function, or it returns something else: one line
  3    the program itself failed, or your code did, with a traceback
  130  interrupted with Ctrl-C

example, with this in coins.py:
  import jax, jax.numpy as jnp
  p = jnp.array([0.2, 0.7])
  def reinforce(key):
      b = jax.random.bernoulli(key, p)
      return b.sum() * (b - p)      # of the gradient of E[sum of b] in the logits of p
  def problem():
      return reinforce, p * (1 - p)

  gumbel-moe check coins:problem --out report
"""


def add(commands: Any) -> None:
    """The command and its options."""
    parser = commands.add_parser("check", help="test your own estimator for bias", description=_ABOUT, epilog=_END)
    parser.add_argument("target", type=_target, metavar=NAME, help="such as coins:problem")
    add_draws(parser, "how likely unbiased estimators, all together, may fail", "of the draws")
    add_out(parser, "DIR", "folder for a report, made if it is not there (default: only print)", required=False)
    parser.set_defaults(run=_run, prog=parser.prog)


def _target(text: str) -> str:
    module, colon, function = text.partition(":")
    if module.endswith(".py"):
        said = f"{module} is a file, name its module: {module.removesuffix('.py').replace('/', '.')}:{function}"
        raise argparse.ArgumentTypeError(said)
    names = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
    if not (colon and re.fullmatch(names, module) and re.fullmatch(names, function)):
        raise argparse.ArgumentTypeError(f"must be a module and a function in it, such as coins:problem, got {text!r}")
    return text


def _run(options: argparse.Namespace) -> int:
    from gumbel_moe.cli._check import check

    return check(options)
