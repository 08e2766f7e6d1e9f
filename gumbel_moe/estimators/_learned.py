"""What baselines that learn share: a network of the caller's and an optimiser, one step at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.routing import Routing


class Optimiser(Protocol):
    """An optax `GradientTransformation`, or what has its two functions."""

    @property
    def init(self) -> Callable[[Any], Any]:
        """From parameters to the optimiser's state."""
        ...

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """From gradients, state and parameters to what is added to the parameters, and the new state."""
        ...


class LearnedState(NamedTuple):
    """Of a baseline that learns."""

    params: Any
    """Of its network."""
    optimiser: Any
    """The optimiser's state."""


def first_state(optimiser: Optimiser, params: Any) -> LearnedState:
    """The state before the first batch."""
    return LearnedState(params, optimiser.init(params))


def step(optimiser: Optimiser, state: LearnedState, gradient: Any) -> LearnedState:
    """The state after one step down a gradient."""
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
    return LearnedState(jax.tree.map(jnp.add, state.params, updates), optimiser_state)


def kept_rows(routing: Routing, x: Array) -> Array:
    """`x` `(n, ...)`, or `(n, m, ...)` of several experts, a constant, with zeros for who was not kept: their rows may
    hold anything.
    """
    kept = routing.kept.reshape(*routing.kept.shape, *([1] * (x.ndim - routing.kept.ndim)))
    return jax.lax.stop_gradient(jnp.where(kept, x, 0))


def present_rows(routing: Routing, x: Array) -> Array:
    """`x` `(n, ...)`, a constant, with zeros for who takes no part: their rows may hold anything."""
    return jax.lax.stop_gradient(jnp.where(routing.mask.reshape(-1, *([1] * (x.ndim - 1))), x, 0))


def mean_of_kept(routing: Routing, errors: Array) -> Array:
    """The mean of errors, of the shape of `routing.kept`, over the kept."""
    return jnp.sum(jnp.where(routing.kept, errors, 0)) / jnp.maximum(jnp.sum(routing.kept), 1).astype(errors.dtype)
