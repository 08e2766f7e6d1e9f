"""Where the integrand is largest: Newton's method, once for typical prices and once in each candidate's coordinates.

The three searches are three rounds of one loop: the program holds one Newton's method and one expansion, which are most
of what there is to compile.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._price_integral._chart import Coordinates, Curve, bent, expand_in, plain, plain_curve
from gumbel_moe.distributions._price_integral._coordinates import Start, coordinates, start_at
from gumbel_moe.distributions._price_integral._derivatives import Expansion, probabilities
from gumbel_moe.distributions._price_integral._in_loop import in_loop
from gumbel_moe.distributions._price_integral._integrand import Integrand
from gumbel_moe.distributions._price_integral._newton import maximise, nothing_yet
from gumbel_moe.distributions._price_integral._problem import BARRED, PriceProblem

_MILD = 12.0  # spread of log-probabilities at which the search for the mode starts
_COOLING = 3.0


class Modes(NamedTuple):
    """Of the two candidates, stacked."""

    coordinates: Coordinates
    point: Array  # (2, k)
    value: Array  # (2,)
    hessian: Array  # (2, k, k)


def starting_point(problem: PriceProblem) -> Start:
    """Typical prices: the mode, with the logarithm as coordinate of those that are at least 0."""
    c = plain(problem)
    x, _, psi = _climb(problem, lambda problem, x: expand_in(problem, c, plain_curve(problem, x)), _hot(problem))
    prices = plain_curve(problem, x).value
    return start_at(prices, psi, probabilities(problem, prices)[0])


def modes(problem: PriceProblem) -> tuple[Modes, Integrand]:
    """The modes, and the integrand prepared around typical prices, the centre of both candidates' coordinates.

    All of `problem` has to vary over the same axes of a mesh.
    """
    first, unravel = ravel_pytree(plain(problem))
    hot = _hot(problem)
    cold = jnp.zeros_like(hot[0]), jnp.ones_like(hot[1]), jnp.ones_like(hot[2])

    def search(carry: tuple[Array, Array, Array], index: Array) -> tuple[tuple[Array, Array, Array], tuple]:
        charts, *_ = carry
        chart = charts[index]
        is_start = index == 0

        def expansion(problem: PriceProblem, x: Array) -> tuple[Expansion, Expansion]:
            c = unravel(in_loop(chart, x))
            curves = zip(plain_curve(problem, x), bent(c, x), strict=True)
            return expand_in(problem, c, Curve(*(jnp.where(is_start, a, b) for a, b in curves)))

        start = jax.tree.map(lambda a, b: jnp.where(is_start, a, b), hot, cold)
        x, here, psi = _climb(problem, expansion, start)

        def begin(_: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            prices = plain_curve(problem, x).value
            probs, own = probabilities(problem, prices)
            both = coordinates(problem, start_at(prices, psi, probs))
            flat = jax.vmap(lambda c: ravel_pytree(c)[0])(both)
            return vary_like(problem, (jnp.concatenate([charts[:1], flat]), probs, own))

        return jax.lax.cond(is_start, begin, lambda carry: carry, carry), (x, here.value, here.hessian)

    start = (jnp.stack([first] * 3), jnp.zeros_like(problem.rows), jnp.zeros_like(first[0]))
    (charts, probs, own), found = jax.lax.scan(search, vary_like(problem, start), jnp.arange(3))
    both = jax.vmap(unravel)(charts[1:])
    around = Integrand(problem, both.centre[0], probs, own)
    return Modes(both, *(leaf[1:] for leaf in found)), around


def _hot(problem: PriceProblem) -> tuple[Array, Array, Array]:
    """Where the search for typical prices starts, and twice the temperature there, and it."""
    spread = jnp.max(jnp.where(problem.rows > BARRED / 2, -problem.rows, 0))
    hottest = jnp.maximum(spread / _MILD, 1)
    return jnp.where(problem.bounded, -jnp.log(jnp.maximum(problem.load, 1)), 0), 2 * hottest, hottest


def _climb(
    problem: PriceProblem,
    expansion: Callable[[PriceProblem, Array], tuple[Expansion, Expansion]],
    start: tuple[Array, Array, Array],
) -> tuple[Array, Expansion, Expansion]:
    """The mode, and the expansions there.

    Sharp logits are cooled down to: the mode at a higher temperature is a start for the next lower one.
    """

    def cool(carry: tuple) -> tuple:
        x, old, new, *_ = carry
        x = jnp.where(problem.bounded, x + jnp.log(old / new), x * (old / new))
        warm = problem._replace(rows=problem.rows / new)
        x, here, psi = maximise(lambda x: expansion(warm, x), x, nothing_yet(x))
        return x, new, jnp.maximum(new / _COOLING, 1), new > 1, here, psi

    carry = vary_like(problem, (*start, jnp.array(True), nothing_yet(start[0]), nothing_yet(start[0])))
    x, _, _, _, here, psi = jax.lax.while_loop(lambda carry: carry[3], cool, carry)
    return x, here, psi
