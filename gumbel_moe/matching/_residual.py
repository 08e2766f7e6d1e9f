"""The residual graph on the experts: what it costs to move one datapoint from one expert to another."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.matching._rows import held, own_scores


def residual_costs(scores: Array, assignment: Array, has_holder: Array) -> Array:
    """Costs `(k, k)`: entry `[p, j]` is the least `s[i, p] - s[i, j]` over the datapoints of expert `p`.

    With several experts for a datapoint, `assignment` `(n, each)`, it is over those that are not at expert `j` already.
    A place-holder of score 0 (`has_holder[p]`: expert `p` has a free place) moves to any expert at cost 0. An expert
    that holds nothing has cost `+inf`, except to itself.
    """
    k = scores.shape[1]
    own = own_scores(scores, assignment)
    if assignment.ndim == 1:
        regret = own[:, None] - scores
    else:
        barred = held(assignment, k)[:, None]
        regret = jnp.where(barred, jnp.inf, own[:, :, None] - scores[:, None]).reshape(-1, k)
        assignment = assignment.reshape(-1)
    costs = jax.ops.segment_min(regret, assignment, num_segments=k)
    costs = jnp.where(has_holder[:, None], jnp.minimum(costs, 0), costs)
    return jnp.where(jnp.eye(k, dtype=bool), 0, costs)
