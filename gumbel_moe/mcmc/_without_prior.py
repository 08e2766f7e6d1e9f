"""Leave a constant term out of a model: what Hamiltonian steps need not compute."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array
from numpyro.handlers import block, seed, substitute, trace
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from gumbel_moe.distributions import UniformAssignment
from gumbel_moe.mcmc._assignment_site import assignment_prior


def without_prior(model: Callable, site: str) -> Callable:
    """The model without the log-probability of an assignment site, for the gradient-based part of a Gibbs sampler.

    Given the assignment, its own log-probability is a constant for all other sites, as long as its logits (the
    capacities of a `UniformAssignment`, which has none) depend on none of them; NUTS would compute it anew in every
    leapfrog step, and for a `GumbelMatching` it may cost more than all the rest. The site is still drawn from its prior
    at the start.

    **Arguments:**

    - `model`: the NumPyro model.
    - `site`: the name of its assignment site.

    **Returns:** a model with the same arguments, for `NUTS` or `HMC`. Give `swap_and_move` the model itself.

    **Raises:** `ValueError`, when it is first run, if the model does not draw the site or the site's logits, or
    those capacities, depend on another latent site; `TypeError` for a site of another distribution.

    ```python
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer.util import log_density
    >>> from gumbel_moe.distributions import GumbelMatching
    >>> from gumbel_moe.mcmc import without_prior
    >>> def model():
    ...     numpyro.sample("z", GumbelMatching(jnp.zeros((4, 2)), capacity=2))
    >>> log_joint, _ = log_density(without_prior(model, "z"), (), {}, {"z": jnp.array([0, 1, 0, 1])})
    >>> float(log_joint)
    0.0

    ```
    """
    return _WithoutPrior(model, site)


@dataclass(frozen=True)
class _WithoutPrior:
    """The model as an object, which can be pickled where the model can."""

    model: Callable
    site: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _check_constant(self.model, self.site, args, kwargs)
        with MaskedSite(self.site):
            return self.model(*args, **kwargs)


class MaskedSite(Messenger):
    """Under this handler a site adds nothing to the log-density, and its log-probability is not even computed."""

    def __init__(self, site: str) -> None:
        super().__init__(None)
        self.site = site

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["name"] == self.site:
            msg["fn"] = msg["fn"].mask(False)


def _check_constant(model: Callable, site: str, args: tuple, kwargs: dict[str, Any]) -> None:
    seeded = seed(model, rng_seed=0)

    def latents() -> dict[str, Array]:
        sites = trace(seeded).get_trace(*args, **kwargs)
        return {name: s["value"] for name, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}

    def parameter(**values: Array) -> dict[str, Any]:
        sites = trace(substitute(seeded, data=values)).get_trace(*args, **kwargs)
        prior = assignment_prior(sites, site)
        name = "capacity" if isinstance(prior, UniformAssignment) else "logits"
        return {name: getattr(prior, name)}

    with block():  # what the model is run under here, a substitution of values for instance, is not asked about
        others = {name: value for name, value in jax.eval_shape(latents).items() if name != site}
        ((name, sources),) = eval_provenance(parameter, **others).items()
    if sources:
        verb = "depends" if name == "capacity" else "depend"
        raise ValueError(f"the {name} of site {site!r} {verb} on the latent sites {sorted(sources)}: keep its prior")
