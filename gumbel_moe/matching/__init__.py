"""Exact capacitated matching: scores to the best assignment, dual prices and exchange distances."""

from gumbel_moe.matching._compiled import compiled_solver_available
from gumbel_moe.matching._exchange import exchange_distances
from gumbel_moe.matching._solve import Matching, solve_matching

__all__ = ["Matching", "compiled_solver_available", "exchange_distances", "solve_matching"]
