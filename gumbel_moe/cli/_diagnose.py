"""`gumbel-moe diagnose`: a random mixture, or your own logits, a router tested on it, a report."""

import argparse

import numpy as np

from gumbel_moe._router_table import ROUTERS, names
from gumbel_moe.cli._capacity import capacity_of
from gumbel_moe.cli._exits import BIASED, FINE, BadArgumentError, tell
from gumbel_moe.cli._files import output_folder
from gumbel_moe.cli._logits import read_logits
from gumbel_moe.cli._parser import check_draws
from gumbel_moe.cli._report import FILES, look_for_packages, write_report

_MOST_LOGITS = 10_000_000
_MIXTURE = {"n": 64, "experts": 8, "scale": 1.0}


def diagnose(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    logits = _complete(options)
    if options.n * options.experts > _MOST_LOGITS:
        raise BadArgumentError("--n", f"times --experts must be at most {_MOST_LOGITS:,}")
    check_draws(options)
    if options.estimator != "corrected" and f"{options.router}_uncorrected" not in ROUTERS:
        processes = [name.removesuffix("_uncorrected") for name in names("uncorrected")]
        said = f"uncorrected is for {' and '.join(processes)}; {options.router} has no weights"
        raise BadArgumentError("--estimator", said)
    if options.floor is not None and ROUTERS[options.router].kind != "weighted":
        raise BadArgumentError("--floor", f"is for {', '.join(names('weighted'))}; {options.router} does not draw")
    each = options.experts_per_datapoint or 1
    if each > options.experts:
        raise BadArgumentError(
            "--experts-per-datapoint", f"must be at most --experts, {options.experts:,}, got {each:,}"
        )
    capacity = capacity_of(options.capacity, options.router, options.n, options.experts, each)
    with output_folder(options.out, FILES, options.force) as folder:
        look_for_packages("diagnose")
        # Now that nothing is wrong with the arguments: JAX takes seconds to import.
        from gumbel_moe.cli._findings import as_json, page, table, verdict
        from gumbel_moe.cli._investigation import investigate
        from gumbel_moe.cli._json import as_text

        found = investigate(options, capacity, logits)
        tree = found.check.data
        tree["routing"], tree["variance"] = found.routing.data, found.comparison.data
        write_report(folder, tree, as_text(as_json(found)), page(found))

    rows = table(found)
    width = max(len(name) for name, _ in rows)
    tell("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    tell(f"{verdict(found)}\nreport: {folder / 'report.html'}")
    return FINE if found.passed else BIASED


def _complete(options: argparse.Namespace) -> np.ndarray | None:
    """The logits of a file, whose shape is then that of the problem; else the defaults of a random mixture."""
    if options.logits is None:
        for name, value in _MIXTURE.items():
            if getattr(options, name) is None:
                setattr(options, name, value)
        return None
    for name in _MIXTURE:
        if getattr(options, name) is not None:
            raise BadArgumentError(f"--{name}", "is for a random mixture; --logits says what there is")
    logits = read_logits(options.logits)
    options.n, options.experts = logits.shape
    return logits
