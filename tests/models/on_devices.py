"""The language model on eight virtual devices, against one device: value, gradient, routing and state; status 1 where
they differ. With `--spoil` the devices route with another key, and must differ.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from gumbel_moe.estimators import assignment_score_loss
from gumbel_moe.routing import BaseRouter, GumbelMatchingRouter, SkipRouter
from models.transformer import AXES, Groups, LanguageModel, PriceKeeper, Sizes, make_mesh, model_specs, on_mesh, place

SIZES = Sizes(layers=2, width=8, heads=2, experts=4, expert_width=12, vocabulary=11)
# No byte twice in a sequence: at its beginning both would see the same, and rounding would break the tie of a matching.
TOKENS = jax.vmap(lambda key: jax.random.permutation(key, 11)[:5])(jax.random.split(jax.random.key(1), 8))
GROUPS, TOGETHER = Groups(8), Groups(None)  # 8 groups of 4 tokens, one place at each expert; or a batch of 32
CASES = {
    "skip": (SkipRouter(1), GROUPS),
    "gumbel_matching": (GumbelMatchingRouter(1, floor=0.0), GROUPS),
    "base with prices": (PriceKeeper(BaseRouter(1)), GROUPS),
    "skip, together": (SkipRouter(7), TOGETHER),  # an odd number of rows is shared unevenly
    "gumbel_matching, together": (GumbelMatchingRouter(8, floor=0.0), TOGETHER),
    "base with prices, together": (PriceKeeper(BaseRouter(8)), TOGETHER),
}


def objective(model, tokens, key, states, router, groups):
    """With a score, whose credits are those of sequences, so that it does not depend on where they are."""
    logits, record = model(key, tokens[:, :-1], router, states, groups=groups)
    losses = model.losses(logits, tokens[:, 1:])
    layers = [jax.tree.map(lambda leaf, layer=layer: leaf[layer], record.routing) for layer in range(SIZES.layers)]
    value = assignment_score_loss(layers, losses, 2.0, credit=0.9)
    return jax.lax.pmean(value, groups.axes) if groups.axes else value, (record.routing.expert, record.router_state)


def apart(one, many):
    """Relative to the largest number, if that is above 1."""
    one, many = np.asarray(one), np.asarray(many)
    return np.abs(one - many).max() / max(1, np.abs(one).max())


def main(spoil):
    mesh, different = make_mesh(2, 4), 0
    model = LanguageModel(jax.random.key(0), SIZES)
    spread = place(mesh, model, model_specs(model))
    for name, (router, groups) in CASES.items():
        states, key = model.init_states(router), jax.random.key(2)

        def alone(model, key, router=router, states=states, groups=groups):
            return objective(model, TOKENS, key, states, router, groups)

        def together(model, key, router=router, states=states, groups=groups):
            def on_device(model, tokens, key, states):
                return objective(model, tokens, key, states, router, groups.on(mesh))

            run = on_mesh(mesh, on_device, (P(), (P(None, AXES), P())))
            return run(model, TOKENS, key, states)

        one = jax.jit(jax.value_and_grad(alone, has_aux=True))(model, key)
        other_key = jax.random.key(3) if spoil else key
        many = jax.jit(jax.value_and_grad(together, has_aux=True))(spread, other_key)
        gaps = jax.tree.leaves(jax.tree.map(apart, one, many))
        same = max(gaps) < 1e-5
        different += not same
        print(f"{name}: {'same' if same else 'different'}, {max(gaps):.1e} apart")
    split = spread.blocks.experts.experts.up.weight
    assert split.sharding.shard_shape(split.shape)[1] * 4 == split.shape[1]
    assert bool(jnp.isfinite(one[0][0]))
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main("--spoil" in sys.argv))
