"""Student experts of the last layer: behind it no token sees another, and the loss of any output is cheap."""

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gumbel_moe.estimators import LearnedState, Network, StudentExperts, shared_network
from inference.language._settings import Settings
from models.transformer import BlockRecord, LanguageModel

_HIDDEN = 256
_FOR_STUDENT = 2  # of the seed's keys


def first_student(settings: Settings) -> LearnedState:
    """Before the first batch."""
    network, student = _made(settings)
    key = jax.random.fold_in(jax.random.key(settings.seed), _FOR_STUDENT)
    return student.init(network.init(key, num_inputs=settings.width))


def last_losses(
    settings: Settings, state: LearnedState, model: LanguageModel, record: BlockRecord, targets: Array
) -> Array:
    """`(r n, k)` what to expect of the tokens' losses, were they sent to each expert of the last layer, by what the
    student says; a full expert may skip them.
    """
    residual, seen = record.residual[-1], record.router_input[-1]

    def losses(outputs: Array | float) -> Array:
        return jax.lax.stop_gradient(model.losses(model.exit(residual + outputs), targets))

    taken = _made(settings)[1].baseline(state, seen, losses)
    if settings.router != "skip":
        return taken
    load = jnp.mean(jnp.exp(record.routing.log_probs[-1]), axis=0)
    share = jnp.minimum(1, settings.capacity / settings.tokens_of_group / load)
    return jax.lax.stop_gradient(share * taken + (1 - share) * losses(0.0)[:, None])


def learn_outputs(settings: Settings, state: LearnedState, record: BlockRecord) -> LearnedState:
    """The student after the outputs of a batch that it has been used for."""
    routing, outputs, seen = jax.tree.map(lambda leaf: leaf[-1], (record.routing, record.outputs, record.router_input))
    return _made(settings)[1].update(state, routing, outputs, seen)


def _made(settings: Settings) -> tuple[Network, StudentExperts]:
    network = shared_network(settings.experts, settings.width, hidden=(_HIDDEN,), rank=settings.student)
    return network, StudentExperts(network.apply, optax.adam(3e-3), network.decode)
