"""Capacity-constrained assignments as probability distributions, for mixtures of experts in JAX and NumPyro.

What there is, from the bottom up; each folder needs those above it, and is imported when it is first used, so that
`import gumbel_moe` takes no time and `gumbel_moe.routing.SkipRouter` just works:

- `gumbel_moe.matching`: the best assignment under capacities, exactly (`solve_matching`), with prices and distances.
- `gumbel_moe.distributions`: assignments as NumPyro distributions, with `sample` and `log_prob` (`SkipAssignment`,
  `GumbelMatching`, `UniformAssignment`).
- `gumbel_moe.mcmc`: the posterior of an assignment within NumPyro's `HMCGibbs` (`swap_and_move`).
- `gumbel_moe.routing`: the routers of a mixture of experts (`SkipRouter`, `GumbelMatchingRouter`, and the biased ones
  of the literature), `make_router` by name, `dispatch` and `combine`.
- `gumbel_moe.estimators`: unbiased gradients from a routing and its losses (`score_function_loss`), the baselines that
  calm them (`StudentExperts`, `RunningMean`, `LossCritic`), `assignment_score_loss` for networks in which tokens meet,
  `AssignmentELBO` for NumPyro.
- `gumbel_moe.diagnostics`: is a gradient estimator unbiased (`check_unbiased`, `check_all`), how noisy is it
  (`compare_variance`), what does a router do (`routing_report`)?
- `gumbel_moe.cli`: the same from the command line, `gumbel-moe --help`.

`gumbel_moe.compiled_solver_available()` says whether the installation has the compiled solver for CPUs.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gumbel_moe import cli, diagnostics, distributions, estimators, matching, mcmc, routing
    from gumbel_moe.matching import compiled_solver_available

__version__ = _version("gumbel_moe")
__all__ = [
    "cli",
    "compiled_solver_available",
    "diagnostics",
    "distributions",
    "estimators",
    "matching",
    "mcmc",
    "routing",
]


if not TYPE_CHECKING:  # or a type checker would take any name for there

    def __getattr__(name: str) -> object:
        if name == "compiled_solver_available":
            return _import_module("gumbel_moe.matching").compiled_solver_available
        if name in __all__:
            return _import_module(f"gumbel_moe.{name}")
        raise AttributeError(f"module 'gumbel_moe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
