"""How each router trains and how it predicts, by name."""

from inference.training.methods._method import Method
from inference.training.methods._registry import METHODS

__all__ = ["METHODS", "Method"]
