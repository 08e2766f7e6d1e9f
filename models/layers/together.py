"""A routed layer whose datapoints are spread over devices and routed as one batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gumbel_moe.routing import Routing, combine, dispatch
from models.layers.moe import MoELayer, Routed


def route_together(
    layer: MoELayer,
    key: PRNGKeyArray,
    x: Float[Array, "n d"],
    router: Any,
    router_state: Any = None,
    *,
    axes: tuple[str, ...],
    expert_axis: str,
) -> Routed:
    r"""What `layer(key, x, router, router_state)` returns of the datapoints of all devices together, inside
    `jax.shard_map`.

    The logits of all $N$ datapoints are gathered, `(N, k)`, and every device routes all of them, each to the same
    result. Who goes where is then known everywhere, but how many rows a device has for an expert is not fixed, as it is
    for groups of its own: the datapoints are gathered too, a device takes the rows that its experts have, its share of
    them along the other axes, and the outputs are summed where they belong.

    **Arguments:**

    - `layer`, `key`, `router`, `router_state`: as for `MoELayer`; the capacity is that of the whole batch.
    - `x`: `(n, d)`, this device's datapoints, as many on each.
    - `axes`: the mesh axes over which they are spread, slowest first.
    - `expert_axis`: the one of them over which the experts are spread: `layer.experts` are this device's, the first
      axis of each leaf being `k` divided by its size.

    **Returns:** a `Routed` of this device's datapoints; the new router state is that of the whole batch.

    **Raises:** `ValueError` where the router gives no record by datapoint (expert choice) or several experts for each.
    """
    here = jax.vmap(layer.router_network)(x)
    tokens, logits = (jax.lax.all_gather(part, axes, tiled=True) for part in (x, here))
    routing = router(key, logits, *(() if router_state is None else (router_state,)))
    if not isinstance(routing, Routing) or routing.expert.ndim > 1:
        raise ValueError(f"router must give every datapoint one expert, got {router!r}")
    places = max(1, min(tokens.shape[0], int(np.max(getattr(router, "capacity", tokens.shape[0])))))
    others = tuple(axis for axis in axes if axis != expert_axis)
    share = -(-places // int(np.prod([jax.lax.axis_size(axis) for axis in others])))  # rows of an expert on a device
    buffers = dispatch(tokens, routing, share * (jax.lax.axis_size(others) if others else 1))
    own = jax.lax.axis_index(expert_axis) * layer.num_experts, (jax.lax.axis_index(others) if others else 0) * share
    rows = jax.lax.dynamic_slice(buffers, (*own, 0), (layer.num_experts, share, buffers.shape[2]))
    outputs = layer.expert_outputs(rows)
    empty = jnp.zeros((*buffers.shape[:2], outputs.shape[2]), outputs.dtype)
    # Rows of other devices are zero here, and so is what they add to the sum.
    filled = jax.lax.dynamic_update_slice(empty, outputs, (*own, 0))
    combined = jax.lax.psum_scatter(combine(filled, routing, gated=True), axes, tiled=True)
    if router_state is not None:
        # Alike on all devices, which the mean makes known to the compiler.
        router_state = jax.lax.pmean(router.update(router_state, routing), axes)
    first = jax.lax.axis_index(axes) * x.shape[0]
    mine = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, x.shape[0]), routing)
    return Routed(combined, mine, router_state)
