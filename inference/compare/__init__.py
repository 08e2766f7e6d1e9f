"""Train every router from the same starting points, and show what came out.

`python -m inference.compare` trains on all data sets with settings that take some minutes; it says at the start how
long, and with what settings the README's table was made. It prints a table for each, and leaves in the folder of
`--out`: `results.json` (`{"rows": [...]}`, one row per router, and what the pictures show), `curves.npz` (every metric
of every start along the way) and pictures. Files of an earlier comparison are kept beside them under a number.

Ctrl-C stops it; all routers that have finished are kept.
"""

from inference.compare._program import main

__all__ = ["main"]
