"""Complete models to run or to copy, built on `gumbel_moe`: two toys, handwritten digits, latent routing in NumPyro."""

from models._one_routed_layer import OneRoutedLayer

__all__ = ["OneRoutedLayer"]
