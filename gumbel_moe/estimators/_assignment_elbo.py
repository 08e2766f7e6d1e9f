"""A NumPyro ELBO in which named Categorical sites are drawn under a capacity, without bias."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient
from numpyro.handlers import seed
from numpyro.infer.elbo import ELBO, MultiFrameTensor, get_nonreparam_deps
from numpyro.infer.util import get_importance_trace
from numpyro.util import check_model_guide_match

from gumbel_moe._experts import at_expert
from gumbel_moe.estimators._gradient_only import gradient_only
from gumbel_moe.estimators._leave_one_out import leave_one_out
from gumbel_moe.estimators._routed_guide import Drawn, RoutedGuide, Router, is_masked, shareable
from gumbel_moe.estimators._stratified import stratified_baseline


class AssignmentELBO(ELBO):
    r"""The ELBO of an unconstrained model, estimated with draws in which each expert serves at most its capacity.

    For a model and a guide with an assignment $z_i \sim \mathrm{Categorical}(p_i)$ for every datapoint $i$ of a plate,
    and terms $f_i(z_i)$ that depend on it inside the same plate (log-likelihood, prior, and minus the guide's own
    log-probability), a weighted draw with $E[w_i 1(z_i = j)] = p_{ij}$ estimates the assignment's part of the ELBO,
    $\sum_i \sum_j p_{ij} f_i(j)$, by $\sum_i w_i f_i(z_i)$, and its gradient by

    $$\sum_i w_i \left( \nabla f_i(z_i) + (f_i(z_i) - b_i) \nabla \log p_{i z_i} \right),$$

    both without bias, whatever the capacity: the ELBO itself has no capacity in it. With several particles the
    baseline $b_i$ is the weighted mean of the datapoint's terms over the *other* particles; with one particle it is 0.
    Independent draws have no capacity to keep, so their $P$ particles are shared out: a datapoint's most probable
    experts get one each for sure, with weight $P p_{ij}$, and the other particles are drawn among the rest; with
    $P \ge k$ nothing is left to chance. This needs logits that no other latent site changes; otherwise the particles
    are drawn independently. Terms that depend on no routed site are added as they are, with reparameterised gradients.

    **Arguments:**

    - `routers`: for the name of each assignment site, how to draw it:
      [`IndependentRouter`][gumbel_moe.routing.IndependentRouter], [`SkipRouter`][gumbel_moe.routing.SkipRouter],
      [`GumbelMatchingRouter`][gumbel_moe.routing.GumbelMatchingRouter], or any function of a key and logits `(n, k)`
      that returns a [`Routing`][gumbel_moe.routing.Routing] with such weights, and takes `mask=` where the site is
      masked.
    - `num_particles`: independent draws of all sites.
    - `vectorize_particles`: as for NumPyro's other ELBOs; False runs them one after the other.
    - `allow_biased`: True takes routers that say of themselves that they are not `weighted`, for comparison.

    Use it as the `loss` of `numpyro.infer.SVI`. The other latent sites must be reparameterised. Under a plate that is
    subsampled, `n` is the size of the subsample.

    Terms are scaled as in NumPyro's other ELBOs (`handlers.scale`), also differently in model and guide. A datapoint
    whose site is masked in the guide (`handlers.mask`, `dist.mask`) takes no part: it takes no place at any expert, and
    nothing of it counts. The model must mask whatever depends on its assignment as well; there it sees expert 0. Where
    such a term is not 0, the loss is NaN, for it would be left out in silence. What the model alone masks is a term
    of 0.

    **Raises:** `ValueError` or `TypeError`, when the loss is first computed, for a model it cannot handle: a routed
    site that the guide lacks, that is no Categorical there, that is not in exactly one plate, or that the guide masks
    and the model does not; a term that depends on it but is outside its plate, or that depends on two routed sites;
    another latent site without a reparameterised sampler. That a likelihood *inside* the plate reads only its own
    datapoint's assignment is what a plate promises, and is not checked. When it is made: `ValueError` for no routers,
    routers that are not `weighted` or give a datapoint several experts, and `num_particles` below 1; `TypeError` for a
    router that cannot be called.

    ```python
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import SVI
    >>> from gumbel_moe.estimators import AssignmentELBO
    >>> from gumbel_moe.routing import SkipRouter
    >>> y = jnp.array([-2.1, -1.9, -2.0, 1.9, 2.0, 2.1])
    >>> def model(y):
    ...     loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    ...     with numpyro.plate("data", 6):
    ...         z = numpyro.sample("z", dist.Categorical(jnp.ones(2) / 2))
    ...         numpyro.sample("y", dist.Normal(loc[z], 1.0), obs=y)
    >>> def guide(y):
    ...     logits = numpyro.param("logits", jnp.zeros((6, 2)))
    ...     with numpyro.plate("data", 6):
    ...         numpyro.sample("z", dist.Categorical(logits=logits))
    >>> elbo = AssignmentELBO({"z": SkipRouter(capacity=3)}, num_particles=4)
    >>> svi = SVI(model, guide, numpyro.optim.Adam(0.1), loss=elbo)
    >>> params = svi.run(jax.random.key(0), 200, y, progress_bar=False).params
    >>> params["logits"].argmax(axis=1).tolist()
    [0, 0, 0, 1, 1, 1]

    ```

    Reference: the estimator of W. Kool, C. J. Maddison, A. Mnih, arXiv 2109.11817 (2021), applied to the ELBO; which
    terms depend on which site is found as in NumPyro's `TraceGraph_ELBO`. Covering
    the probable outcomes: R. Liu, J. Regier, N. Tripuraneni, M. Jordan, J. McAuliffe, *Rao-Blackwellized Stochastic
    Gradients for Discrete Distributions*, arXiv 1810.04777 (2019); here their number follows from the probabilities.
    """

    can_infer_discrete = True

    def __init__(
        self,
        routers: Mapping[str, Router],
        num_particles: int = 1,
        vectorize_particles: bool | Callable = True,
        *,
        allow_biased: bool = False,
    ) -> None:
        if not routers:
            raise ValueError("routers must name at least one assignment site, got none")
        for name, router in routers.items():
            if not callable(router):
                raise TypeError(f"the router of site {name!r} must be callable, got {router!r}")
            if not (allow_biased or getattr(router, "weighted", True)):
                raise ValueError(f"the router of site {name!r} has no correction weights: {router!r} is biased")
            if getattr(router, "experts_per_datapoint", None) is not None:
                raise ValueError(f"site {name!r} has one expert per datapoint, a Categorical's value; got {router!r}")
        if num_particles < 1:
            raise ValueError(f"num_particles must be at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles, vectorize_particles=vectorize_particles)
        self.routers = dict(routers)

    def loss(
        self, rng_key: Array, param_map: dict[str, Any], model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Array:
        """Minus the estimated ELBO in nats, a scalar; its gradient is the estimate of the gradient."""
        shared = shareable(guide, self.routers, args, kwargs, param_map) if self.num_particles > 1 else frozenset()

        def particle(numbered: tuple[Array, Array]) -> _Particle:
            key, number = numbered
            model_key, guide_key, draw_key = jax.random.split(key, 3)
            routed_guide = RoutedGuide(
                guide, self.routers, draw_key, shared=shared, particle=number, num_particles=self.num_particles
            )
            traces = get_importance_trace(
                seed(model, model_key), seed(routed_guide, guide_key), args, kwargs, param_map
            )
            self._check(*traces)
            latents = {name: site["value"] for name, site in _drawn(traces[1])}
            deps = get_nonreparam_deps(model, guide, args, kwargs, param_map, latents=latents)
            return self._particle(traces, deps, routed_guide)

        numbered = jax.random.split(rng_key, self.num_particles), jnp.arange(self.num_particles, dtype=jnp.int32)
        particles = self.vectorize_particles_fn(particle, numbered)
        elbo = jnp.mean(particles.rest)
        for name, (drawn, cost, log_q) in particles.routed.items():
            weighted = jnp.where(drawn.weight == 0, 0, drawn.weight * cost)
            detached = stop_gradient(weighted)
            if name in shared:
                baseline = stratified_baseline(drawn.weight, detached, drawn.at_random)
            else:
                baseline = leave_one_out(drawn.weight, stop_gradient(cost))
            score = (detached - drawn.weight * baseline) * gradient_only(log_q)
            elbo = elbo + jnp.mean(jnp.sum(weighted + score, axis=1))
            if drawn.present is not None:
                elbo = elbo * jnp.where(jnp.any(~drawn.present & (cost != 0)), jnp.nan, 1)
        return -elbo

    def _particle(self, traces: tuple[Any, Any], deps: tuple[Any, Any], routed_guide: RoutedGuide) -> "_Particle":
        """All terms of one particle, by the routed site on which they depend."""
        guide_trace = traces[1]
        rest = jnp.zeros(())
        costs = {name: MultiFrameTensor() for name in self.routers}
        for trace, depends_on, sign in zip(traces, deps, (1, -1), strict=True):
            for name, site in trace.items():
                if site["type"] != "sample":
                    continue
                log_prob = sign * site["log_prob"]
                if trace is guide_trace and name in self.routers:
                    log_prob = stop_gradient(log_prob)  # the expectation of its gradient is zero
                owner = self._owner(name, site, depends_on[name], guide_trace)
                if owner is None:
                    rest = rest + jnp.sum(log_prob)
                else:
                    costs[owner].add((site["cond_indep_stack"], log_prob))
        routed = {}
        for name, cost in costs.items():
            site = guide_trace[name]
            per_datapoint = jnp.broadcast_to(cost.sum_to(site["cond_indep_stack"]), site["value"].shape)
            log_probs = jax.nn.log_softmax(routed_guide.logits[name], axis=1)
            log_q = at_expert(log_probs, site["value"].reshape(-1))
            routed[name] = _Terms(routed_guide.drawn[name], per_datapoint.reshape(-1), log_q)
        return _Particle(rest, routed)

    def _check(self, model_trace: Any, guide_trace: Any) -> None:
        check_model_guide_match(model_trace, guide_trace)
        names = [name for name, _ in _drawn(guide_trace)]
        for name in self.routers:
            if name not in names:
                raise ValueError(f"routers has a site {name!r} that the guide does not draw; it draws {names}")
            if is_masked(guide_trace[name]["fn"]) and not is_masked(model_trace[name]["fn"]):
                raise ValueError(
                    f"site {name!r} is masked in the guide and must be in the model too, as must all that depends on it"
                )
        for name, site in _drawn(guide_trace):
            if name not in self.routers and not site["fn"].has_rsample:
                raise ValueError(
                    f"latent site {name!r} has no reparameterised sampler ({type(site['fn']).__name__}); "
                    "AssignmentELBO handles such sites only as Categorical sites named in routers"
                )

    def _owner(self, name: str, site: Any, deps: Iterable[str], guide_trace: Any) -> str | None:
        """The routed site on which a term depends, if any; raises where its weights could not stand for the term."""
        owners = sorted(set(deps) & set(self.routers))
        if not owners:
            return None
        if len(owners) > 1:
            raise ValueError(f"site {name!r} depends on several routed sites, {owners}; AssignmentELBO handles one")
        (plate,) = guide_trace[owners[0]]["cond_indep_stack"]
        if plate not in site["cond_indep_stack"]:
            raise ValueError(
                f"site {name!r} depends on the routed site {owners[0]!r} but is outside its plate {plate.name!r}; "
                "AssignmentELBO needs every term that depends on an assignment in the plate of the datapoints "
                "(TraceGraph_ELBO handles other models, without a capacity)"
            )
        return owners[0]


class _Terms(NamedTuple):
    """`(n,)` arrays of one routed site."""

    drawn: Drawn
    cost: Array
    log_q: Array


class _Particle(NamedTuple):
    """One draw of everything: the terms that depend on no routed site, and those of each routed site."""

    rest: Array
    routed: dict[str, _Terms]


def _drawn(trace: Any) -> list[tuple[str, Any]]:
    return [
        (name, site) for name, site in trace.items() if site["type"] == "sample" and not site.get("is_observed", False)
    ]
