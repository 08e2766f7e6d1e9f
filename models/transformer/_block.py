"""A block of the network: attention, then a routed layer, each on what is normalised and added to the residual path."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models.layers import MoELayer, Routed, route_in_groups, route_together
from models.transformer._attention import Attention
from models.transformer._feed_forward import routed_layer
from models.transformer._sharding import Groups
from models.transformer._sizes import Sizes


class BlockRecord(NamedTuple):
    """What a block says of its router; all None of a dense one."""

    routing: Any
    """Of all `n` tokens of the batch, the sequences one after the other."""
    router_state: Any
    """For the next batch."""
    router_input: Any
    """`(n, d)` what the router saw; no gradient flows through it."""
    residual: Any
    """`(n, d)` what the outputs are added to; no gradient flows through it."""
    outputs: Any
    """`(n, d)` of the experts, 0 for who has none; no gradient flows through it."""
    z_loss: Any
    """`()` mean of the squared logarithm of the sum of the exponentials of a token's logits."""


class Block(eqx.Module):
    """Pre-norm: causal self-attention with rotary positions, then the experts.

    A token that no expert takes keeps what the residual path brings.
    """

    attention_norm: eqx.nn.RMSNorm
    attention: Attention
    experts_norm: eqx.nn.RMSNorm
    experts: MoELayer
    activations: str = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, sizes: Sizes) -> None:
        for_attention, for_experts = jax.random.split(key)
        self.attention_norm = eqx.nn.RMSNorm(sizes.width, use_bias=False)
        self.attention = Attention(for_attention, sizes)
        self.experts_norm = eqx.nn.RMSNorm(sizes.width, use_bias=False)
        self.experts = routed_layer(for_experts, sizes)
        self.activations = sizes.activations

    def attend(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """What attention adds."""
        return _cast(self.attention, self.activations)(_normal(self.attention_norm, x))

    def __call__(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "b t d"],
        router: Any = None,
        router_state: Any = None,
        groups: Groups | None = None,
    ) -> tuple[Float[Array, "b t d"], BlockRecord]:
        """The residual path after the block; `router` is None for a dense model, `groups` for one of all tokens."""
        x = x + self.attend(x)
        tokens = _normal(self.experts_norm, x).reshape(-1, x.shape[-1])
        network: Any = self.experts.router_network
        layer = MoELayer(_cast(self.experts.experts, self.activations), network)
        if router is None:
            if layer.num_experts > 1:
                raise ValueError(f"router must be given for {layer.num_experts} experts, got None")
            return x + layer.expert_outputs(tokens[None])[0].reshape(x.shape), BlockRecord(*[None] * 6)
        outputs, routing, router_state = _routed(layer, key, tokens, router, router_state, groups or Groups(None))
        raw = jax.vmap(network.raw)(tokens)
        z_loss = jnp.mean(jax.nn.logsumexp(raw, axis=1) ** 2)
        told = jax.lax.stop_gradient((tokens, x.reshape(tokens.shape), outputs))
        seen, residual, put_out = (each.astype(jnp.float32) for each in told)
        return x + outputs.reshape(x.shape), BlockRecord(routing, router_state, seen, residual, put_out, z_loss)


def _routed(layer: MoELayer, key: PRNGKeyArray, tokens: Array, router: Any, state: Any, groups: Groups) -> Routed:
    number, axes, expert_axis = groups
    if number is not None:
        return route_in_groups(layer, key, tokens, router, state, groups=number, axes=axes, expert_axis=expert_axis)
    if expert_axis is not None:
        return route_together(layer, key, tokens, router, state, axes=axes, expert_axis=expert_axis)
    return layer(key, tokens, router, state)


def _normal(norm: eqx.nn.RMSNorm, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    return jax.vmap(jax.vmap(norm))(x).astype(x.dtype)


def _cast(module: Any, dtype: str) -> Any:
    """`module` with its parameters in the type of the activations."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, module)
