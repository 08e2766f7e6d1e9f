"""How each router trains and how it predicts, by name."""

from inference.training.methods._method import Method
from inference.training.methods._registry import ESTIMATOR_METHODS, METHODS, ROUTER_METHODS

__all__ = ["ESTIMATOR_METHODS", "METHODS", "ROUTER_METHODS", "Method"]
