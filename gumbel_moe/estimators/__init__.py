"""Estimators of gradients: from routings and losses, and as a NumPyro ELBO."""

from gumbel_moe.estimators._assignment_elbo import AssignmentELBO
from gumbel_moe.estimators._exact import exact_loss
from gumbel_moe.estimators._score_function import score_function_loss

__all__ = ["AssignmentELBO", "exact_loss", "score_function_loss"]
