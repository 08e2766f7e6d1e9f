"""Train the language model of `models/transformer` with any router, compare routers on it, write text, draw curves.

`python -m inference.language train --router NAME` leaves in the folder of `--out`: `run.json` (what was asked for),
`metrics.jsonl` (a line for every step), `evaluations.jsonl` (held-out text, for each way of routing at test) and
`checkpoints/`. With `--resume` it goes on from the last checkpoint; what comes out is, bit by bit, what a run that was
never interrupted would have given. `compare` trains several routers and seeds that way, `generate` continues a text
with a run's model, `plot` draws the curves of the runs in a folder.
"""

from inference.language._program import main

__all__ = ["main"]
