"""`gumbel-moe check`: a user's own estimator tested, and a report."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from traceback import walk_tb
from typing import Any

from gumbel_moe.cli._exits import BIASED, FINE, BadArgumentError, tell
from gumbel_moe.cli._files import output_folder
from gumbel_moe.cli._parser import check_draws
from gumbel_moe.cli._report import FILES, look_for_packages, write_report
from gumbel_moe.cli._target import NAME, problem_of

_NOT_THE_USERS = {"gumbel_moe", "jax", "jaxlib", "numpy", "contextlib"}


def check(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    check_draws(options)
    place = nullcontext() if options.out is None else output_folder(options.out, FILES, options.force)
    with place as folder:
        if folder is not None:
            look_for_packages("check")
        report = _tested(options, *problem_of(options.target))
        if folder is not None:
            from gumbel_moe.cli._json import as_text

            write_report(folder, report.data, as_text(_numbers(options, report)), report.page())
    tell(str(report))
    if folder is not None:
        tell(f"report: {folder / 'report.html'}")
    return FINE if report.passed else BIASED


def _tested(options: argparse.Namespace, estimate: Any, exact: Any) -> Any:
    """The report on one estimator, or the table of several."""
    import jax

    from gumbel_moe.diagnostics import check_all, check_unbiased

    test: Any = check_all if isinstance(estimate, Mapping) else check_unbiased
    settings = (jax.random.key(options.seed), options.draws, options.chains, options.false_fail_rate)
    attrs = {"target": options.target, "seed": options.seed}
    try:
        return test(estimate, exact, *settings, progress=sys.stderr.isatty(), attrs=attrs)
    except (TypeError, ValueError) as error:
        if _from_the_users_code(error):
            raise
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()) if note.startswith("of the"))
        raise BadArgumentError(NAME, f"{options.target} returned what cannot be tested: {error}{notes}") from None


def _from_the_users_code(error: Exception) -> bool:
    """Whether it came up while the user's functions ran, and so has a traceback that says more than one line."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any(name.partition(".")[0] not in _NOT_THE_USERS for name in frames)


def _numbers(options: argparse.Namespace, report: Any) -> dict[str, Any]:
    from gumbel_moe.cli._json import of_check

    names = ("target", "draws", "chains", "false_fail_rate", "seed")
    settings = {"arguments": {name: getattr(options, name) for name in names}}
    if not hasattr(report, "reports"):
        return {**of_check(report), **settings}
    estimators = {name: of_check(one) for name, one in report.reports.items()}
    return {"passed": report.passed, "estimators": estimators, **settings}
