"""A routed layer whose datapoints are routed in groups, on one device or with experts and groups spread over many.

Each group is a batch of its own to the router, with its own places at every expert, as in GShard. So what one device
computes with all groups, many devices compute with some each: experts exchange buffers of a fixed size, since every
group has as many places at every expert, whoever takes them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gumbel_moe.routing import Routing, combine, dispatch
from models.layers.moe import MoELayer, Routed


def route_in_groups(
    layer: MoELayer,
    key: PRNGKeyArray,
    x: Float[Array, "n d"],
    router: Any,
    router_state: Any = None,
    *,
    groups: int,
    axes: tuple[str, ...] = (),
    expert_axis: str | None = None,
) -> Routed:
    r"""What `layer(key, x, router, router_state)` returns, with its `n` datapoints routed as `groups` batches.

    **Arguments:**

    - `layer`, `key`, `router`, `router_state`: as for `MoELayer`; the capacity is that of a group. Group $g$ of all
      takes the key `fold_in(key, g)`, on whatever device.
    - `x`: `(n, d)`, one group after the other. Inside `jax.shard_map`: those of this device's groups.
    - `groups`: on this device.
    - `axes`: inside `jax.shard_map`, the mesh axes over which groups are spread, slowest first.
    - `expert_axis`: the one of them over which the experts are spread too: `layer.experts` are then this device's, the
      first axis of each leaf being `k` divided by its size. Buffers go there and back by `jax.lax.all_to_all`.

    **Returns:** a `Routed` of this device's datapoints; the new router state is the mean over all groups' own.

    **Raises:** `ValueError` where `n` is no multiple of `groups`, or the router gives no record by datapoint (expert
    choice) or several experts for each.

    Reference: D. Lepikhin et al., *GShard: Scaling Giant Models with Conditional Computation and Automatic Sharding*,
    arXiv 2006.16668 (2020), section 3.2.
    """
    n, d = x.shape
    if n % groups:
        raise ValueError(f"groups must divide the {n} datapoints, got {groups}")
    first = groups * sum(
        jax.lax.axis_index(axis) * int(np.prod([jax.lax.axis_size(later) for later in axes[place + 1 :]]))
        for place, axis in enumerate(axes)
    )
    keys = jax.vmap(lambda group: jax.random.fold_in(key, group))(first + jnp.arange(groups))
    size = n // groups
    places = max(1, min(size, int(np.max(getattr(router, "capacity", size)))))
    tokens = x.reshape(groups, size, d)
    logits = jax.vmap(layer.router_network)(x).reshape(groups, size, -1)
    state = () if router_state is None else (router_state,)
    # One after the other: inside `shard_map`, JAX 0.10 cannot vectorise a loop whose end depends on the device.
    routing = jax.lax.map(lambda group: router(*group, *state), (keys, logits))
    if not isinstance(routing, Routing) or routing.expert.ndim > 2:
        raise ValueError(f"router must give every datapoint one expert, got {router!r}")
    # (groups, k, places, d) -> (k, groups * places, d): an expert sees no groups.
    buffers = jax.vmap(lambda tokens, routing: dispatch(tokens, routing, places))(tokens, routing)
    buffers = jnp.moveaxis(buffers, 0, 1).reshape(buffers.shape[1], groups * places, d)
    if expert_axis is not None:
        buffers = jax.lax.all_to_all(buffers, expert_axis, split_axis=0, concat_axis=1, tiled=True)
    outputs = layer.expert_outputs(buffers)
    if expert_axis is not None:
        outputs = jax.lax.all_to_all(outputs, expert_axis, split_axis=1, concat_axis=0, tiled=True)
    outputs = jnp.moveaxis(outputs.reshape(outputs.shape[0], groups, places, -1), 1, 0)
    combined = jax.vmap(lambda outputs, routing: combine(outputs, routing, gated=True))(outputs, routing)
    together = jax.tree.map(lambda leaf: leaf.reshape(n, *leaf.shape[2:]), routing)
    if router_state is not None:
        states = jax.lax.map(lambda routing: router.update(router_state, routing), routing)
        router_state = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), states)
        router_state = jax.lax.pmean(router_state, axes) if axes else router_state
    return Routed(combined.reshape(n, -1), together, router_state)
