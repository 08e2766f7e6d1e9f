"""Fit the wines' regressions with and without known group sizes, and say what knowing them is worth.

`python -m inference.balanced_regression` fits four models for each of a few draws of the labelled wines, prints a table
and leaves in the folder of `--out`: `balanced_regression.json` (one row per fit), the posterior of the last balanced
fit as `balanced_regression.nc`, which ArviZ reads, and pictures.

Ctrl-C stops it; fits that have finished are kept, and `--resume` goes on after them. Without it, results
of an earlier run are kept beside the new ones under a number.
"""

from inference.balanced_regression._program import main

__all__ = ["main"]
