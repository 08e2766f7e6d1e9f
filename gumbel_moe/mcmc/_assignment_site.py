"""Find the assignment distribution of a site in a model's trace."""

from typing import Any

from numpyro.distributions import Distribution, ExpandedDistribution, MaskedDistribution

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment


def assignment_prior(sites: Any, site: str) -> Any:
    """The distribution of assignments at `site`, masked or not; raises for anything else."""
    if site not in sites or sites[site]["type"] != "sample":
        drawn = [name for name, s in sites.items() if s["type"] == "sample" and not s["is_observed"]]
        raise ValueError(f"site {site!r} is not drawn by the model; it draws {drawn}")
    distribution: Distribution = sites[site]["fn"]
    while isinstance(distribution, ExpandedDistribution | MaskedDistribution):
        distribution = distribution.base_dist
    if not isinstance(distribution, GumbelMatching | SkipAssignment | UniformAssignment):
        name = type(distribution).__name__
        raise TypeError(f"site {site!r} must be a GumbelMatching, SkipAssignment or UniformAssignment, got {name}")
    if sites[site]["fn"].batch_shape:
        raise ValueError(f"site {site!r} must be one assignment, got batch shape {sites[site]['fn'].batch_shape}")
    return distribution
