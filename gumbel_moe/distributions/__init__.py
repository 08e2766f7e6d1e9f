"""NumPyro distributions over capacity-constrained assignments of datapoints to experts."""

from gumbel_moe.distributions._gumbel_matching import GumbelMatching
from gumbel_moe.distributions._skip import SkipAssignment

__all__ = ["GumbelMatching", "SkipAssignment"]
