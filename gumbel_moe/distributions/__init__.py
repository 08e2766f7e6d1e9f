"""NumPyro distributions over capacity-constrained assignments of datapoints to experts."""

from gumbel_moe.distributions._enumeration import enumerate_assignments, outcome_probabilities
from gumbel_moe.distributions._gumbel_matching import GumbelMatching
from gumbel_moe.distributions._matching_log_prob import Estimate, matching_log_prob
from gumbel_moe.distributions._skip import SkipAssignment
from gumbel_moe.distributions._uniform import UniformAssignment

__all__ = [
    "Estimate",
    "GumbelMatching",
    "SkipAssignment",
    "UniformAssignment",
    "enumerate_assignments",
    "matching_log_prob",
    "outcome_probabilities",
]
