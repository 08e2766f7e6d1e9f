"""Constants inside `jax.shard_map`: made to vary over the axes of a mesh over which the data do."""

from typing import TypeVar

import jax

Tree = TypeVar("Tree")


def vary_like(reference: object, tree: Tree) -> Tree:
    """`tree`, its arrays marked as varying over every mesh axis that an array of the pytree `reference` varies over.

    What a loop starts with, and what the branches of a condition return, must have the type of what comes out. A
    constant varies over no axis, the result of a step with sharded data over theirs; most functions cast by themselves,
    loops and conditions do not. Outside `jax.shard_map`, and with `check_vma=False`, nothing varies: then it is `tree`.
    """
    axes = frozenset().union(*(_axes(leaf) for leaf in jax.tree.leaves(reference)))
    return jax.tree.map(lambda leaf: _cast(leaf, axes - _axes(leaf)), tree)


def _axes(leaf: object) -> frozenset[str]:
    kind = jax.typeof(leaf)
    if hasattr(kind, "vma"):  # JAX before 0.10
        return kind.vma
    return kind.manual_axis_type.varying


def _cast(leaf: jax.Array, axes: frozenset[str]) -> jax.Array:
    if not axes:
        return leaf
    names = tuple(sorted(axes, key=str))
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(leaf, names, to="varying")
    return getattr(jax.lax, "pvary")(leaf, names)  # noqa: B009 - JAX before 0.9; later ones do not have it
