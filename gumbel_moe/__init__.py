"""Capacity-constrained assignments as probability distributions, for mixtures of experts in JAX and NumPyro."""

from importlib.metadata import version as _version

__version__ = _version("gumbel_moe")
