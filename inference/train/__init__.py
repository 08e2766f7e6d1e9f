"""Train one model with one router, with metrics and checkpoints, and carry on where an interrupted run stopped.

`python -m inference.train --data digits --router skip` leaves in the folder of `--out`: `run.json` (what was asked
for), `metrics.jsonl` (a line every so many steps) and `checkpoints/` (orbax: model, optimiser, what the router carries,
step and key). With `--resume` it goes on from the last checkpoint; the parameters and metrics that come out are, bit by
bit, those of a run that was never interrupted. A damaged checkpoint is moved aside, and the one before it taken.
"""

from inference.train._program import main

__all__ = ["main"]
