"""The logarithm of the integrand at one price vector, with its gradient and Hessian in closed form.

`psi(u) = log det L_F(u) + sum_i log p[i, z_i](u)`, where `p[i](u)` is the softmax of the logits less the prices,
`L = diag(load) - R`, and `R[p, j]` sums `p[i, j]` over the datapoints of expert `p`. `F` are the experts not pinned.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.distributions._price_integral._problem import PriceProblem


class Expansion(NamedTuple):
    """A function's value, gradient and Hessian at one point."""

    value: Array
    gradient: Array
    hessian: Array


def probabilities(problem: PriceProblem, prices: Array) -> tuple[Array, Array]:
    """`(blocks, size, k)` softmax at the prices, 0 for padding; and the log-probability of the assignment there."""
    log_probs, own = log_probabilities(problem, prices)
    return jnp.exp(log_probs) * problem.real[..., None], own


def log_probabilities(problem: PriceProblem, prices: Array) -> tuple[Array, Array]:
    """The same before the exponential, padding included."""
    shifted = problem.rows - prices
    shifted = shifted - jax.lax.stop_gradient(jnp.max(shifted, axis=-1, keepdims=True))
    log_probs = shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))
    per_block = jnp.einsum("bij,bi->bj", log_probs, problem.real, precision="highest")
    return log_probs, jnp.sum(per_block * problem.owner.T)


def minor(rates: Array, kept: Array) -> Array:
    """`diag(row sums) - rates` on the experts `kept`, the identity elsewhere; the diagonal of `rates` does not count.

    The diagonal is raised by a few units of rounding, so that no price makes the matrix singular.
    """
    eye = jnp.eye(rates.shape[-1], dtype=rates.dtype)
    off = rates * (1 - eye)
    info = jnp.finfo(rates.dtype)
    diagonal = jnp.sum(off, axis=-1, keepdims=True) * (1 + 4 * info.eps) + info.tiny ** (1 / 3)
    laplacian = eye * diagonal - off
    return jnp.where(kept[:, None] & kept, laplacian, eye)


def expand(problem: PriceProblem, prices: Array) -> Expansion:
    """`psi` at `prices` `(k,)`: `O(n k^2 + k^4)`."""
    k = prices.shape[0]
    probs, own = probabilities(problem, prices)
    flat = probs.reshape(-1, k)
    mean = jnp.sum(flat, axis=0)
    rates = _matmul(problem.owner, jnp.sum(probs, axis=1))
    inverse, log_det = _inverse(rates, ~problem.pinned)
    # Row i of `pull` is the inverse's column of its expert, times p[i]: the datapoint's part in d log det.
    pull = (_matmul(problem.owner.T, inverse.T)[:, None, :] * probs).reshape(-1, k)
    total = jnp.sum(pull, axis=-1, keepdims=True) * flat
    pulled, along = jnp.sum(pull, axis=0), jnp.sum(total, axis=0)
    mixed = _matmul(pull.T, flat)
    bend = jnp.diag(pulled - along) - mixed - mixed.T + 2 * _matmul(flat.T, total)
    return Expansion(
        value=log_det + own,
        gradient=mean - problem.load + pulled - along,
        hessian=_matmul(flat.T, flat) - jnp.diag(mean) - bend - _squared(problem, probs, rates, inverse),
    )


def _inverse(rates: Array, kept: Array) -> tuple[Array, Array]:
    """That of `minor(rates, kept)`, 0 for experts that are not kept, and the logarithm of the determinant."""
    factors, _, order = jax.lax.linalg.lu(minor(rates, kept))
    eye = jnp.eye(rates.shape[0], dtype=rates.dtype)
    left = jax.lax.linalg.triangular_solve(factors, eye[order], left_side=True, lower=True, unit_diagonal=True)
    inverse = jax.lax.linalg.triangular_solve(factors, left, left_side=True, lower=False)
    return jnp.where(kept[:, None] & kept, inverse, 0), jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factors))))


def _squared(problem: PriceProblem, probs: Array, rates: Array, inverse: Array) -> Array:
    """`tr(X dL_a X dL_b)` for all pairs of prices, `X` the inverse."""
    k = rates.shape[0]
    gram = jnp.einsum("bia,bil->bal", probs, probs, precision="highest").reshape(-1, k * k)
    gram = _matmul(problem.owner, gram).reshape(k, k, k)
    slope = jnp.eye(k, dtype=rates.dtype) * rates[:, :, None] - gram  # [p, a, l]: d L[p, l] / d u_a
    turned = _matmul(inverse, slope.reshape(k, k * k)).reshape(k, k, k)  # [m, a, l]
    one = turned.transpose(1, 0, 2).reshape(k, k * k)
    other = turned.transpose(1, 2, 0).reshape(k, k * k)
    return _matmul(one, other.T)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")
