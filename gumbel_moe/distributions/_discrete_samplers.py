"""A clear refusal of NumPyro's samplers that update discrete sites one entry at a time."""

import sys

from numpyro.infer import DiscreteHMCGibbs, MixedHMC

_DEPTH = 12  # frames between a sampler's `init` and the question that it asks of a distribution


def refuse_discrete_samplers(distribution: str) -> None:
    """Raise when called on behalf of such a sampler.

    NumPyro asks a distribution only whether it has an enumerable support, and takes the answer no for "there is nothing
    to sample here": its own errors then speak of missing sites. Who asks can be seen on the stack alone.
    """
    frame = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            return
        sampler = frame.f_locals.get("self")
        if isinstance(sampler, DiscreteHMCGibbs | MixedHMC):
            raise NotImplementedError(
                f"{type(sampler).__name__} cannot sample a site with a {distribution}, whose entries are tied to one "
                "another by the capacities; use HMCGibbs with gibbs_fn=gumbel_moe.mcmc.swap_and_move(model, site)"
            )
        frame = frame.f_back
