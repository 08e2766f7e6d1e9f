"""`gumbel-moe diagnose`: a random mixture, its router tested, a report."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax

from gumbel_moe.cli._exits import BIASED, FINE, BadArgumentError
from gumbel_moe.cli._files import output_folder, write_whole
from gumbel_moe.cli._findings import Findings, as_json, table, verdict
from gumbel_moe.cli._main import tell
from gumbel_moe.cli._mixture import random_mixture
from gumbel_moe.cli._routers import capacity_of, estimator, router_of
from gumbel_moe.diagnostics import check_unbiased, compare_variance, routing_report
from gumbel_moe.diagnostics._needs import need

_MOST_LOGITS, _MOST_DRAWS = 10_000_000, 10_000_000


def diagnose(options: argparse.Namespace) -> int:
    """Run the command, and return its exit code."""
    if options.n * options.experts > _MOST_LOGITS:
        raise BadArgumentError("--n", f"times --experts must be at most {_MOST_LOGITS:,}")
    if options.draws * options.chains > _MOST_DRAWS:
        raise BadArgumentError("--draws", f"times --chains must be at most {_MOST_DRAWS:,}")
    capacity = capacity_of(options.capacity, options.router, options.n, options.experts)
    router = router_of(options.router, capacity, options.estimator == "corrected")
    _look_for_packages()
    folder = output_folder(options.out)

    found = _investigate(options, capacity, router)
    tree = found.check.data
    tree["routing"], tree["variance"] = found.routing.data, found.comparison.data
    write_whole(folder / "draws.nc", lambda path: tree.to_netcdf(path, engine="h5netcdf"))
    numbers = json.dumps(as_json(found), indent=1, allow_nan=False)
    write_whole(folder / "report.json", lambda path: path.write_text(numbers + "\n", encoding="utf-8"))
    _write_page(found, folder / "report.html")

    rows = table(found)
    width = max(len(name) for name, _ in rows)
    tell("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    tell(f"{verdict(found)}\nreport: {folder / 'report.html'}")
    return FINE if found.passed else BIASED


def _investigate(options: argparse.Namespace, capacity: Any, router: Any) -> Findings:
    mixture = random_mixture(options.n, options.experts, options.scale, options.seed)
    settings = {
        "router": options.router,
        "estimator": options.estimator,
        "n": options.n,
        "experts": options.experts,
        "capacity": list(capacity) if isinstance(capacity, tuple) else capacity,
        "scale": options.scale,
        "draws": options.draws,
        "chains": options.chains,
        "false_fail_rate": options.false_fail_rate,
        "seed": options.seed,
    }
    gradient, weights, noise = jax.random.split(jax.random.key(options.seed), 3)
    progress = sys.stderr.isatty()
    attrs = {name: value for name, value in settings.items() if name not in ("draws", "chains", "false_fail_rate")}
    rate = options.false_fail_rate / 2  # the gradient and the weights are tested: each gets half
    estimate = estimator(mixture, options.router, router)
    check = check_unbiased(
        estimate, mixture.exact, gradient, options.draws, options.chains, rate, progress=progress, attrs=attrs
    )
    logits = mixture.logits(mixture.params)
    routing = routing_report(
        router, logits, weights, options.draws * options.chains, false_fail_rate=rate, progress=progress, attrs=attrs
    )
    estimates = {"independent": estimator(mixture, "independent", router_of("independent", capacity, True))}
    estimates[options.router] = estimate
    cost = {"independent": float(options.n), options.router: options.n * (1 - routing.skipped)}
    comparison = compare_variance(
        estimates, noise, options.draws, options.chains, cost=cost, progress=progress, attrs=attrs
    )
    return Findings(settings, check, routing, comparison, options.false_fail_rate)


def _write_page(found: Findings, path: Path) -> None:
    from gumbel_moe.cli._page import page  # after all else: matplotlib takes a while

    text = page(found)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _look_for_packages() -> None:
    """Before the work, not after it."""
    for module in ("matplotlib", "tqdm", "h5py", "h5netcdf"):
        try:
            need(module, "gumbel-moe diagnose")
        except ModuleNotFoundError as error:
            raise BadArgumentError(None, error) from None
