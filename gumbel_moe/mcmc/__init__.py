"""Markov chain Monte Carlo over assignments, for NumPyro's Gibbs samplers."""

from gumbel_moe.mcmc._swap_and_move import swap_and_move

__all__ = ["swap_and_move"]
