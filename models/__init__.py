"""Complete models to run or to copy, built on `gumbel_moe`: a toy in one dimension and handwritten digits."""

from models._mixture import Mixture

__all__ = ["Mixture"]
