"""A clear refusal of NumPyro's samplers of single discrete entries, and of those of continuous sites."""

import sys

from numpyro.infer import DiscreteHMCGibbs, MixedHMC

_ADVICE = "use HMCGibbs with gibbs_fn=gumbel_moe.mcmc.swap_and_move(model, site)"
_DEPTH = 12  # frames between a sampler's `init` and the question that it asks of a distribution


def refuse_discrete_samplers(distribution: str) -> None:
    """Raise when called on behalf of such a sampler.

    NumPyro asks a distribution only whether it has an enumerable support, and takes the answer no for "there is nothing
    to sample here": its own errors then speak of missing sites. Who asks can be seen on the stack alone.
    """
    frame = sys._getframe(1)
    asking = frame.f_back  # beyond the property that calls this
    if asking is not None and asking.f_globals.get("__name__") == "numpyro.infer.util":
        # It asks about latent sites alone, to transform or enumerate them, and raises where the answer is no.
        raise NotImplementedError(
            f"NUTS, other samplers of continuous sites and automatic guides cannot infer a site with a {distribution}; "
            f"{_ADVICE}, or SVI with TraceGraph_ELBO and a guide that draws the site"
        )
    for _ in range(_DEPTH):
        if frame is None:
            return
        sampler = frame.f_locals.get("self")
        if isinstance(sampler, DiscreteHMCGibbs | MixedHMC):
            raise NotImplementedError(
                f"{type(sampler).__name__} cannot sample a site with a {distribution}, whose entries are tied to one "
                f"another by the capacities; {_ADVICE}"
            )
        frame = frame.f_back
