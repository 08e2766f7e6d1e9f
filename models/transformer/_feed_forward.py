"""What a routed layer is made of: experts, and a router in float32."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from models.layers import MoELayer
from models.transformer._sizes import Sizes


class Expert(eqx.Module):
    """One hidden layer of Gaussian error linear units, without biases."""

    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray, sizes: Sizes) -> None:
        first, second = jax.random.split(key)
        self.up = eqx.nn.Linear(sizes.width, sizes.expert_width, use_bias=False, key=first)
        self.down = eqx.nn.Linear(sizes.expert_width, sizes.width, use_bias=False, key=second)

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """Of one token."""
        return self.down(jax.nn.gelu(self.up(x)))


class RouterNetwork(eqx.Module):
    r"""Logits $a = s W x$ in float32, or with a floor $\epsilon$ the logarithms of $(1 - \epsilon) p + \epsilon / k$.

    The floor is part of the model, and differentiated with it: the scores of draws that no weight corrects are those of
    the probabilities that were drawn from.
    """

    linear: eqx.nn.Linear
    floor: float = eqx.field(static=True)
    sharpness: float = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, sizes: Sizes) -> None:
        self.linear = eqx.nn.Linear(sizes.width, sizes.experts, use_bias=False, key=key)
        self.floor, self.sharpness = sizes.floor, sizes.sharpness

    def raw(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        """Before the floor."""
        return self.sharpness * self.linear(x.astype(jnp.float32))

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " k"]:
        """Of one token, `(d,)` of any width, float32."""
        logits = self.raw(x)
        if not self.floor:
            return logits
        share = jnp.log(jnp.float32(self.floor / logits.shape[0]))
        return jnp.logaddexp(jnp.log1p(-self.floor) + jax.nn.log_softmax(logits), share)


def routed_layer(key: PRNGKeyArray, sizes: Sizes) -> MoELayer:
    """`k` experts and their router."""
    for_experts, for_router = jax.random.split(key)
    experts = eqx.filter_vmap(lambda key: Expert(key, sizes))(jax.random.split(for_experts, sizes.experts))
    return MoELayer(experts, RouterNetwork(for_router, sizes))
