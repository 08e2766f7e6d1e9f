"""How each router trains and how it predicts, by name."""

from inference.training.methods._method import (
    Method,
    RouterState,
    Traffic,
    mixture_log_likelihoods,
    most_probable,
)
from inference.training.methods._registry import METHODS, find_method

__all__ = [
    "METHODS",
    "Method",
    "RouterState",
    "Traffic",
    "find_method",
    "mixture_log_likelihoods",
    "most_probable",
]
