"""What the models share: a router, experts of one shape, and a loss per datapoint."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


class Mixture(eqx.Module):
    r"""A mixture of `k` experts: a router gives logits $a_{ij}$, expert $j$ an output $h_j(x_i)$.

    All leaves are arrays, so that a model is a plain pytree: `jax.vmap` over many of them trains many starts at once.
    """

    @property
    @abc.abstractmethod
    def num_experts(self) -> int:
        """`k`."""

    @abc.abstractmethod
    def logits(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The router's unnormalised log-probabilities."""

    @abc.abstractmethod
    def expert_outputs(self, buffers: Float[Array, "k places d"]) -> Float[Array, "k places out"]:
        """Every expert on its own buffer: what runs in a capacity-limited step."""

    @abc.abstractmethod
    def losses(self, outputs: Float[Array, "n out"], targets: Shaped[Array, "n ..."]) -> Float[Array, " n"]:
        """The loss of every datapoint for one output each."""

    def all_outputs(self, x: Float[Array, "n d"]) -> Float[Array, "n k out"]:
        """Every expert on every datapoint, for enumeration."""
        return jnp.moveaxis(self.expert_outputs(jnp.broadcast_to(x, (self.num_experts, *x.shape))), 0, 1)

    def all_losses(self, x: Float[Array, "n d"], targets: Shaped[Array, "n ..."]) -> Float[Array, "n k"]:
        r"""$f_{ij}$: the loss of every datapoint under every expert."""
        return jax.vmap(lambda outputs: self.losses(outputs, targets), 1, 1)(self.all_outputs(x))
