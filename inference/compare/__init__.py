"""Train every router from the same starting points, and show what came out.

`python -m inference.compare` trains on both data sets with settings that take a few minutes, prints a table for each,
and leaves in the folder of `--out`: `results.json` (`{"rows": [...]}`, one row per router), `curves.npz` (every metric
of every start along the way) and pictures. Files of an earlier comparison are kept beside them under a number.

Ctrl-C stops it; all routers that have finished are kept.
"""

from inference.compare._program import main

__all__ = ["main"]
