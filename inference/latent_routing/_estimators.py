"""The ways to train the latent routing: exact references, draws without a limit, draws under a capacity."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from numpyro.infer import TraceGraph_ELBO
from numpyro.infer.elbo import ELBO

from gumbel_moe.estimators import AssignmentELBO
from gumbel_moe.routing import capacity_for, make_router
from models import latent_routing as lr


@dataclass(frozen=True)
class Estimator:
    """One loss for `SVI`."""

    name: str
    kind: str
    """As in `inference.shared.style`: "weighted", "uncorrected", "reference"."""
    make: Callable[[int, int, int], ELBO]
    """The loss, from the number of datapoints, of experts and of particles."""
    factor: float | None = None
    """The capacity of an expert, in multiples of its fair share; None for no limit."""
    enumerates: bool = False
    """Every expert computes every datapoint."""

    def capacity(self, n: int, k: int) -> int:
        """The places of an expert."""
        return n if self.factor is None else capacity_for(n, k, self.factor)


class MarginalLikelihood(ELBO):
    """Minus the log-likelihood with the assignment summed out: no guide, no draws."""

    can_infer_discrete = True

    def loss(
        self, rng_key: Array, param_map: dict[str, Any], model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Array:
        """In nats, a sum over datapoints."""
        return -jnp.sum(lr.log_likelihood(param_map, *args))


def _routed(router: str, factor: float | None = None, **options: Any) -> Callable[[int, int, int], ELBO]:
    """A loss whose draws are those of a router, with room for everybody where no factor is given."""

    def make(n: int, k: int, particles: int) -> ELBO:
        places = n if factor is None else capacity_for(n, k, factor)
        return AssignmentELBO({"z": make_router(router, places, **options)}, particles, allow_biased=True)

    return make


_ALL = [
    Estimator("marginal", "reference", lambda n, k, particles: MarginalLikelihood(), enumerates=True),
    Estimator("enumerated", "reference", _routed("independent"), enumerates=True),
    Estimator("trace_graph", "reference", lambda n, k, particles: TraceGraph_ELBO(particles)),
    Estimator("independent", "weighted", _routed("independent")),
    # With room for everybody the skip process is independent draws, and these are not shared out among the experts.
    Estimator("skip_no_limit", "weighted", _routed("skip")),
    Estimator("skip_1.25", "weighted", _routed("skip", 1.25), 1.25),
    Estimator("skip_1.00", "weighted", _routed("skip", 1.0), 1.0),
    Estimator("matching_1.25", "weighted", _routed("gumbel_matching", 1.25, floor=0.0), 1.25),
    Estimator("matching_1.00", "weighted", _routed("gumbel_matching", 1.0, floor=0.0), 1.0),
    Estimator("skip_1.00_uncorrected", "uncorrected", _routed("skip_uncorrected", 1.0), 1.0),
    Estimator("matching_1.00_uncorrected", "uncorrected", _routed("gumbel_matching_uncorrected", 1.0), 1.0),
]

ESTIMATORS = {estimator.name: estimator for estimator in _ALL}


def loss_of(estimator: Estimator, n: int, k: int, particles: int) -> ELBO:
    """The loss; enumeration takes as many particles as there are experts, which leaves nothing to chance."""
    return estimator.make(n, k, k if estimator.enumerates else particles)
