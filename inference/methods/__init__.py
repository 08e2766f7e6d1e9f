"""How each router trains and how it predicts, by name."""

from inference.methods._method import Method, Traffic
from inference.methods._registry import METHODS, find_method

__all__ = ["METHODS", "Method", "Traffic", "find_method"]
