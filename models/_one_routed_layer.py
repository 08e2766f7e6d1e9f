"""What the small models share: one routed layer, and a loss per datapoint."""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from models.layers import MoELayer


class OneRoutedLayer(MoELayer):
    r"""A model that is one routed layer: its router gives logits $a_{ij}$, expert $j$ an output $h_j(x_i)$.

    All leaves are arrays, so that a model is a plain pytree: `jax.vmap` over many of them trains many starts at once.
    """

    @property
    @abc.abstractmethod
    def num_inputs(self) -> int:
        """`d`, of a datapoint."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Of an expert."""

    @abc.abstractmethod
    def losses(self, outputs: Float[Array, "n out"], targets: Shaped[Array, "n ..."]) -> Float[Array, " n"]:
        """The loss of every datapoint for one output each."""

    def all_outputs(self, x: Float[Array, "n d"]) -> Float[Array, "n k out"]:
        """Every expert on every datapoint, for enumeration."""
        return jnp.moveaxis(self.expert_outputs(jnp.broadcast_to(x, (self.num_experts, *x.shape))), 0, 1)

    def all_losses(self, x: Float[Array, "n d"], targets: Shaped[Array, "n ..."]) -> Float[Array, "n k"]:
        r"""$f_{ij}$: the loss of every datapoint under every expert."""
        return jax.vmap(lambda outputs: self.losses(outputs, targets), 1, 1)(self.all_outputs(x))

    def outputs_of(self, x: Float[Array, "n d"], expert: Int[Array, " n *m"]) -> Float[Array, "n *m out"]:
        """The output of expert `expert[i]` for every datapoint, or of each of its `m` experts; no gate."""
        if expert.ndim == 1:
            return jnp.take_along_axis(self.all_outputs(x), expert[:, None, None], axis=1)[:, 0]
        return jnp.take_along_axis(self.all_outputs(x), expert[:, :, None], axis=1)

    def most_probable_outputs(self, x: Float[Array, "n d"]) -> Float[Array, "n out"]:
        """The output of every datapoint's most probable expert, no gate."""
        return self.outputs_of(x, jnp.argmax(self.logits(x), axis=1))

    def mixture_log_likelihoods(self, x: Float[Array, "n d"], targets: Shaped[Array, "n ..."]) -> Float[Array, " n"]:
        """In nats, of the mixture of all experts by `p`, where the loss is a negative log-likelihood."""
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits(x), axis=1) - self.all_losses(x, targets), axis=1)
