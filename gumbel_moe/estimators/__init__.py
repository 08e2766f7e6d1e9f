"""Gradient estimators: a routing and its losses to a scalar whose gradient is the estimate."""

from gumbel_moe.estimators._exact import exact_loss
from gumbel_moe.estimators._score_function import score_function_loss

__all__ = ["exact_loss", "score_function_loss"]
