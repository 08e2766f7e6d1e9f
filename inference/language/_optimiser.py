"""Adam for the network and Adam for its routers, each with a clipping of its own: the noise of a score term must not
shorten everybody else's step.
"""

from typing import Any

import equinox as eqx
import jax
import optax

from inference.language._settings import Settings

_MOMENTS = 0.9, 0.95


def is_router(model: Any) -> Any:
    """A tree like the model's: which leaves are its routers'."""

    def network(tree: Any) -> Any:
        return tree.blocks.experts.router_network

    fixed = jax.tree.map(lambda _: False, model)
    return eqx.tree_at(network, fixed, jax.tree.map(lambda _: True, network(model)))


def make_optimiser(settings: Settings) -> optax.GradientTransformation:
    """For gradients of the whole model."""

    def schedule(rate: float) -> optax.Schedule:
        warmup = min(settings.warmup, max(1, settings.steps // 2))
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, settings.steps, 0.1 * rate)

    rest = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule(settings.rate), *_MOMENTS, weight_decay=settings.decay),
    )
    routers = optax.chain(
        optax.clip_by_global_norm(settings.router_clip), optax.adam(schedule(settings.router_rate), *_MOMENTS)
    )

    def labels(model: Any) -> Any:
        return jax.tree.map(lambda own: "routers" if own else "rest", is_router(model))

    return optax.partition({"routers": routers, "rest": rest}, labels)
