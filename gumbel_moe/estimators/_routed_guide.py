"""A NumPyro guide whose Categorical sites are drawn by a router instead of independently."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import (
    CategoricalLogits,
    CategoricalProbs,
    Distribution,
    ExpandedDistribution,
    MaskedDistribution,
)
from numpyro.handlers import seed, substitute, trace
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from gumbel_moe.estimators._stratified import stratified_draw
from gumbel_moe.routing import IndependentRouter, Routing

Router = Callable[[Array, Array], Routing]


class Drawn(NamedTuple):
    """`(n,)` weights of a routed site, and whether its expert was drawn, or is there to cover a probable expert; and
    who takes part, None for all.
    """

    weight: Array
    at_random: Array
    present: Array | None


class RoutedGuide(Messenger):
    """Runs a guide; each site in `routers` gets the experts of a weighted draw as its value.

    The particles of sites in `shared` are the draws of a stratified one. What was drawn from, and its weights, are left
    in `logits` and `drawn`. A datapoint that is masked has zeros for logits, weight 0, and expert 0, for the model is
    still run with it.
    """

    def __init__(
        self,
        guide: Callable,
        routers: Mapping[str, Router],
        key: Array,
        *,
        shared: Collection[str] = (),
        particle: Array | int = 0,
        num_particles: int = 1,
    ) -> None:
        super().__init__(guide)
        self.routers, self.shared = routers, shared
        self.particle, self.num_particles = particle, num_particles
        self.key = key
        self.logits: dict[str, Array] = {}
        self.drawn: dict[str, Drawn] = {}

    def process_message(self, msg: Any) -> None:
        """Draw the site, once the plates inside the guide have expanded its distribution."""
        name = msg["name"]
        if msg["type"] != "sample" or name not in self.routers:
            return
        if msg["is_observed"]:
            raise ValueError(f"site {name!r} is observed in the guide; only a site that the guide draws can be routed")
        logits, present = _categorical_logits(name, msg["fn"])
        if len(msg["cond_indep_stack"]) != 1:
            plates = [frame.name for frame in msg["cond_indep_stack"]]
            raise ValueError(f"site {name!r} must be in exactly one plate of the guide, its datapoints, got {plates}")
        batch_shape = logits.shape[:-1]
        if max(batch_shape) != math.prod(batch_shape):
            raise ValueError(f"site {name!r} must have one axis, the datapoints, got batch shape {batch_shape}")
        self.key, key = jax.random.split(self.key)
        self.logits[name] = logits.reshape(-1, logits.shape[-1])
        present = None if present is None else present.reshape(-1)
        expert, self.drawn[name] = self._draw(name, key, jax.lax.stop_gradient(self.logits[name]), present)
        msg["value"] = expert.reshape(batch_shape)

    def _draw(self, name: str, key: Array, logits: Array, present: Array | None) -> tuple[Array, Drawn]:
        if name in self.shared:
            expert, weight, at_random = stratified_draw(key, logits, jnp.asarray(self.particle), self.num_particles)
        else:
            routing = self.routers[name](key, logits, **({} if present is None else {"mask": present}))
            if not isinstance(routing, Routing):
                raise TypeError(f"the router of site {name!r} must return a Routing, got {type(routing).__name__}")
            expert, weight, at_random = routing.expert, routing.weight, jnp.ones(routing.expert.shape, bool)
        if present is not None:
            expert, weight = jnp.where(present, expert, 0), jnp.where(present, weight, 0)
        return expert, Drawn(weight, at_random, present)


def shareable(
    guide: Callable, routers: Mapping[str, Router], args: tuple, kwargs: dict[str, Any], params: dict[str, Any]
) -> frozenset[str]:
    """The sites of independent routers whose logits are the same in all particles, for nothing that is drawn changes
    them: no other site, and no subsample of a plate.

    Only their particles can be shared out among the experts.
    """
    independent = [name for name, router in routers.items() if isinstance(router, IndependentRouter)]

    def logits(seed_key: Array, draw_key: Array) -> dict[str, Array]:
        routed = RoutedGuide(seed(substitute(guide, data=params), seed_key), routers, draw_key)
        trace(routed).get_trace(*args, **kwargs)
        return routed.logits

    sources = eval_provenance(logits, seed_key=jax.random.key(0), draw_key=jax.random.key(0))
    return frozenset(name for name in independent if not sources.get(name, {None}))


def is_masked(fn: Distribution) -> bool:
    """Whether a distribution is masked, expanded by its plate or not."""
    while isinstance(fn, ExpandedDistribution):
        fn = fn.base_dist
    return isinstance(fn, MaskedDistribution)


def _categorical_logits(name: str, fn: Distribution) -> tuple[Array, Array | None]:
    """`(*batch_shape, k)` logits of a Categorical, expanded by its plate or not, and its mask if it has one."""
    base, present = fn, None
    while isinstance(base, ExpandedDistribution | MaskedDistribution):
        if isinstance(base, MaskedDistribution):
            present = jnp.asarray(base._mask) if present is None else present & base._mask
        base = base.base_dist
    if not isinstance(base, CategoricalLogits | CategoricalProbs):
        raise TypeError(f"site {name!r} must be a Categorical in the guide, got {type(base).__name__}")
    logits = jnp.asarray(base.logits)
    logits = jnp.broadcast_to(logits, (*fn.batch_shape, logits.shape[-1]))
    if present is None:
        return logits, None
    present = jnp.broadcast_to(present, fn.batch_shape)
    return jnp.where(present[..., None], logits, 0), present
