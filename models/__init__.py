"""Complete models to run or to copy, built on `gumbel_moe`: a toy, handwritten digits, latent routing in NumPyro."""

from models._mixture import Mixture

__all__ = ["Mixture"]
