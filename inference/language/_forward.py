"""The network on a batch, and functions of its routings by group, on one device or a mesh of them."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh, NamedSharding

from inference.language._settings import Settings
from models.transformer import AXES, EVERYWHERE, SEQUENCES, BlockRecord, Groups, LanguageModel, on_mesh


def forward(
    settings: Settings, mesh: Mesh | None, model: LanguageModel, key: Array, windows: Array, router: Any, states: Any
) -> tuple[Array, BlockRecord]:
    """The losses `(b, t)` in nats of windows `(b, t + 1)`, and what the routers did."""
    number = _groups(settings, windows[:, 1:].size)
    groups = Groups(number if number > 1 else None)

    def run(model: LanguageModel, windows: Array, key: Array, states: Any) -> tuple[Array, BlockRecord]:
        here = groups if mesh is None else groups.on(mesh)
        logits, record = model(key, windows[:, :-1], router, states, groups=here)
        if mesh is not None:
            record = record._replace(z_loss=jax.lax.pmean(record.z_loss, AXES))
        return model.losses(logits, windows[:, 1:]), record

    if mesh is None:
        return run(model, windows, key, states)
    of_tokens = jax.sharding.PartitionSpec(None, AXES)  # behind the layers
    record = BlockRecord(of_tokens, EVERYWHERE, of_tokens, of_tokens, of_tokens, z_loss=EVERYWHERE)
    return on_mesh(mesh, run, (SEQUENCES, record))(model, windows, key, states)


def by_group(settings: Settings, mesh: Mesh | None, function: Callable[[Any], Any], of_tokens: Any) -> Any:
    """`function` of the arrays `(n, ...)` of every group, its results stacked.

    On a mesh every device has its own groups, or all devices the whole batch, alike.
    """
    groups = _groups(settings, jax.tree.leaves(of_tokens)[0].shape[0])
    if groups == 1:
        if mesh is not None:
            of_tokens = jax.lax.with_sharding_constraint(of_tokens, NamedSharding(mesh, EVERYWHERE))
        return jax.tree.map(lambda leaf: leaf[None], function(of_tokens))
    grouped = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), of_tokens)

    def run(grouped: Any) -> Any:
        return jax.lax.map(function, grouped)

    return (run if mesh is None else jax.shard_map(run, mesh=mesh, in_specs=SEQUENCES, out_specs=SEQUENCES))(grouped)


def _groups(settings: Settings, tokens: int) -> int:
    """In how many so many tokens are routed: several draws of a batch have groups of their own."""
    return tokens // settings.tokens_of_group
