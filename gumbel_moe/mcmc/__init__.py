"""Markov chain Monte Carlo over assignments, for NumPyro's Gibbs samplers."""

from gumbel_moe.mcmc._swap_and_move import swap_and_move
from gumbel_moe.mcmc._without_prior import without_prior

__all__ = ["swap_and_move", "without_prior"]
