"""The probability of a matching as an integral over the experts' prices, and two ways to compute it."""

from gumbel_moe.distributions._price_integral._problem import PriceProblem, price_problem
from gumbel_moe.distributions._price_integral._quadrature import by_quadrature
from gumbel_moe.distributions._price_integral._sampling import by_sampling, keys_for, num_chunks

__all__ = ["PriceProblem", "by_quadrature", "by_sampling", "keys_for", "num_chunks", "price_problem"]
