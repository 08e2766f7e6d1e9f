"""`gumbel-moe sample`: draws for a user's own logits."""

import argparse

import numpy as np

from gumbel_moe.cli._capacity import capacity_of
from gumbel_moe.cli._exits import FINE, BadArgumentError, tell
from gumbel_moe.cli._files import output_file, whole_output
from gumbel_moe.cli._logits import read_logits

_MOST_NUMBERS = 2**30


def sample(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    logits = read_logits(options.logits)
    n, k = logits.shape
    if options.experts_per_datapoint not in (None, 1):
        raise BadArgumentError(
            "--experts-per-datapoint",
            "must be 1: sample writes the log-probability of whole assignments, and there is none for several experts; "
            "the routers of gumbel_moe.routing draw such assignments with weights, and diagnose tests them",
        )
    if options.draws * n > _MOST_NUMBERS:
        raise BadArgumentError("--draws", f"times the {n:,} rows of --logits must be at most {_MOST_NUMBERS:,}")
    capacity = capacity_of(options.capacity, options.router, n, k)
    path = output_file(options.out, options.logits, options.force)

    from gumbel_moe.cli._sampling import draw_all  # now that nothing is wrong: JAX takes seconds to import

    drawn = draw_all(options.router, logits, capacity, options.floor, options.seed, options.draws)
    places = np.broadcast_to(np.asarray(capacity, np.int32), (k,))
    with whole_output(path) as (part,), part.open("wb") as file:  # a name would get .npz appended
        np.savez(file, **drawn._asdict(), capacity=places, seed=np.asarray(options.seed))

    mean = float(np.mean(drawn.log_prob))
    tell(
        f"{options.draws:,} draws of {n:,} datapoints and {k:,} experts by {options.router}: {path}\n"
        f"skipped {1 - np.mean(drawn.kept):.1%}, largest weight {np.max(drawn.weight):.3g}, "
        f"mean log-probability {mean:.2f} nats"
    )
    return FINE
