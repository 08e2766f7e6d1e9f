"""What `gumbel-moe diagnose` computes."""

import argparse
import sys

import jax
import numpy as np

from gumbel_moe.cli._capacity import Capacity
from gumbel_moe.cli._findings import Findings
from gumbel_moe.cli._mixture import mixture_of, random_mixture
from gumbel_moe.cli._precision import precision
from gumbel_moe.cli._routers import estimator, router_of
from gumbel_moe.diagnostics import check_unbiased, compare_variance, routing_report


def investigate(options: argparse.Namespace, capacity: Capacity, logits: np.ndarray | None = None) -> Findings:
    """The router's gradient and weights tested, its variance measured, in the precision of the logits."""
    with precision(np.dtype(np.float32) if logits is None else logits.dtype):
        return _investigate(options, capacity, logits)


def _investigate(options: argparse.Namespace, capacity: Capacity, given: np.ndarray | None) -> Findings:
    each = options.experts_per_datapoint
    router = router_of(options.router, capacity, options.estimator == "corrected", options.floor, each)
    if given is None:
        mixture = random_mixture(options.n, options.experts, options.scale, options.seed)
        problem = {"scale": options.scale}
    else:
        mixture = mixture_of(given, options.seed)
        problem = {"logits": str(options.logits)}
    settings = {
        "router": options.router,
        "estimator": options.estimator,
        "n": options.n,
        "experts": options.experts,
        "capacity": list(capacity) if isinstance(capacity, tuple) else capacity,
        "floor": getattr(router, "floor", None),
        **({} if each is None else {"experts_per_datapoint": each}),
        **problem,
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
    independent = router_of("independent", capacity, True, experts_per_datapoint=each)
    estimates = {"independent": estimator(mixture, "independent", independent), options.router: estimate}
    asked = options.n * (each or 1)
    cost = {"independent": float(asked), options.router: asked * (1 - routing.skipped)}
    comparison = compare_variance(
        estimates, noise, options.draws, options.chains, cost=cost, progress=progress, attrs=attrs
    )
    return Findings(settings, check, routing, comparison, options.false_fail_rate)
