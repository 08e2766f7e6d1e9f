"""`gumbel-moe diagnose`: a random mixture, its router tested, a report."""

import argparse
import json

from gumbel_moe._optional import need
from gumbel_moe._router_table import ROUTERS, names
from gumbel_moe.cli._capacity import capacity_of
from gumbel_moe.cli._exits import BIASED, FINE, BadArgumentError, tell
from gumbel_moe.cli._files import output_folder, whole_output

_MOST_LOGITS, _MOST_DRAWS = 10_000_000, 10_000_000
_FILES = ("draws.nc", "report.json", "report.html")


def diagnose(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    if options.n * options.experts > _MOST_LOGITS:
        raise BadArgumentError("--n", f"times --experts must be at most {_MOST_LOGITS:,}")
    if options.draws * options.chains > _MOST_DRAWS:
        raise BadArgumentError("--draws", f"times --chains must be at most {_MOST_DRAWS:,}")
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
    with output_folder(options.out, _FILES) as folder:
        _look_for_packages()
        # Now that nothing is wrong with the arguments: JAX takes seconds to import.
        from gumbel_moe.cli._findings import as_json, table, verdict
        from gumbel_moe.cli._investigation import investigate
        from gumbel_moe.cli._page import page
        from gumbel_moe.diagnostics._save import netcdf

        found = investigate(options, capacity)
        tree = found.check.data
        tree["routing"], tree["variance"] = found.routing.data, found.comparison.data
        numbers = json.dumps(as_json(found), indent=1, allow_nan=False) + "\n"
        contents = (netcdf(tree), numbers.encode(), page(found).encode())
        with whole_output(*(folder / name for name in _FILES)) as parts:
            for part, content in zip(parts, contents, strict=True):
                part.write_bytes(content)

    rows = table(found)
    width = max(len(name) for name, _ in rows)
    tell("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    tell(f"{verdict(found)}\nreport: {folder / 'report.html'}")
    return FINE if found.passed else BIASED


def _look_for_packages() -> None:
    """Before the work, not after it."""
    for module in ("matplotlib", "tqdm", "h5py", "h5netcdf"):
        try:
            need(module, "gumbel-moe diagnose")
        except ModuleNotFoundError as error:
            raise BadArgumentError(None, error) from None
