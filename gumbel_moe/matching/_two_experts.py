"""Two experts: the matching is a sort of the differences of their scores."""

import jax.numpy as jnp
from jax import Array


def solve_two(scores: Array, capacity: Array) -> tuple[Array, Array, Array]:
    """Assignment `(n,)`, prices `(2,)` and whether there is a feasible one, for scores `(n, 2)`.

    Expert 1 gets the datapoints that prefer it most: as many as prefer it at all, but for what the capacities require.
    The difference of the prices is the number nearest to 0 between the last of them and the first of the others.
    """
    n = scores.shape[0]
    preference = scores[:, 1] - scores[:, 0]
    order = jnp.argsort(-preference, stable=True)
    ranked = preference[order]
    willing = jnp.sum(preference > 0, dtype=jnp.int32)
    number = jnp.clip(willing, jnp.maximum(n - capacity[0], 0), jnp.minimum(capacity[1], n))
    assignment = jnp.zeros(n, jnp.int32).at[order].set((jnp.arange(n, dtype=jnp.int32) < number).astype(jnp.int32))

    edge = jnp.full(1, jnp.inf, scores.dtype)
    bounded = jnp.concatenate([edge, ranked, -edge])
    last, first_left = bounded[number], bounded[number + 1]
    difference = jnp.clip(0, first_left, last).astype(scores.dtype)
    # +inf: expert 0 is forbidden; -inf: expert 1 is. Such datapoints must be on the right side of the cut.
    feasible = (last > -jnp.inf) & (first_left < jnp.inf)
    return assignment, jnp.maximum(jnp.stack([-difference, difference]), 0), feasible
