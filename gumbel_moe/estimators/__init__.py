"""Estimators of gradients: from routings and losses, and as a NumPyro ELBO; and the baselines that calm them."""

from gumbel_moe.estimators._assignment_elbo import AssignmentELBO
from gumbel_moe.estimators._assignment_score import assignment_score_loss
from gumbel_moe.estimators._exact import exact_loss
from gumbel_moe.estimators._learned import LearnedState
from gumbel_moe.estimators._leave_one_out import leave_one_out
from gumbel_moe.estimators._loss_critic import LossCritic
from gumbel_moe.estimators._losses_to_go import losses_to_go
from gumbel_moe.estimators._market_prices import at_market_prices
from gumbel_moe.estimators._network import Network, shared_network
from gumbel_moe.estimators._running_mean import RunningMean, RunningMeanState
from gumbel_moe.estimators._score_function import score_function_loss
from gumbel_moe.estimators._student_experts import StudentExperts

__all__ = [
    "AssignmentELBO",
    "LearnedState",
    "LossCritic",
    "Network",
    "RunningMean",
    "RunningMeanState",
    "StudentExperts",
    "assignment_score_loss",
    "at_market_prices",
    "exact_loss",
    "leave_one_out",
    "losses_to_go",
    "score_function_loss",
    "shared_network",
]
