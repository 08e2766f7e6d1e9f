"""What is known of the losses before a batch is drawn, and is subtracted from the credit of what was."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gumbel_moe.estimators import LearnedState, LossCritic, losses_to_go
from gumbel_moe.routing import Routing
from inference.language._settings import Settings
from inference.language._student import first_student, last_losses, learn_outputs
from models.transformer import BlockRecord, LanguageModel

_MEMORY = 0.99  # of the running means
_FOR_CRITIC = 1  # of the seed's keys


class Baseline(NamedTuple):
    """What earlier batches told."""

    critic: Any
    """Of every layer, stacked: a map from `Known.critics` to a token's credit under each expert."""
    student: LearnedState | None
    """Of the last layer's experts."""
    mean: Array
    """`()` running mean of the batches' losses."""
    variance: Array
    """`()` running mean of the squared advantages."""


class Known(NamedTuple):
    """What is known of a batch before it is drawn; `r` draws of a batch, `l` layers."""

    critics: Array
    """`(l, r n, ...)` what the critics see: the routers' input and, if they are told, the byte to be predicted, and the
    loss of doing so if this layer were the last.
    """
    last: Array | None
    """`(r n, k)` the student's losses in the last layer."""


class Expected(NamedTuple):
    """What is subtracted in the score term, and what that leaves."""

    subtracted: Array
    """`(r, l, n, k)` of tokens with a credit of their own, under each expert; `(r,)` of the loss of a whole draw."""
    advantage: Array
    """`(r, l, n)` or `(r,)`: credit less what is subtracted of what was drawn."""


def _predict(params: Any, x: Array) -> Array:
    """`(n, k)`; linear, or with hidden units that keep the linear way beside them."""
    found = x @ params["weight"] + params["bias"]
    if "hidden" in params:
        found += jax.nn.gelu(x @ params["hidden"]) @ params["out"]
    return found


_CRITIC = LossCritic(_predict, optax.adam(3e-3))


def first_baseline(settings: Settings) -> Baseline:
    """Before the first batch."""
    sizes, width = settings.sizes, settings.critic
    sees = sizes.width + {"input": 0, "byte": sizes.vocabulary, "exit": sizes.vocabulary + 1}[settings.critic_sees]
    weight = jnp.zeros((sees, sizes.experts))
    if settings.critic_sees == "exit":
        weight = weight.at[-1].set(1)
    params = {"weight": weight, "bias": jnp.zeros(sizes.experts)}
    params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (sizes.layers, *leaf.shape)), params)
    if width:
        key = jax.random.fold_in(jax.random.key(settings.seed), _FOR_CRITIC)
        params["hidden"] = jax.random.normal(key, (sizes.layers, sees, width)) / jnp.sqrt(sees)
        params["out"] = jnp.zeros((sizes.layers, width, sizes.experts))
    uniform = jnp.log(jnp.float32(sizes.vocabulary))  # the loss of knowing nothing
    student = first_student(settings) if settings.student else None
    return Baseline(jax.vmap(_CRITIC.init)(params), student, uniform, jnp.ones(()))


def known_before(
    settings: Settings, baseline: Baseline, model: LanguageModel, record: BlockRecord, targets: Array
) -> Known:
    """What a baseline may depend on, which is all but the draw."""
    targets = targets.reshape(-1)
    last = None if baseline.student is None else last_losses(settings, baseline.student, model, record, targets)
    return Known(_critic_input(settings, model, record.router_input, targets), last)


def _critic_input(settings: Settings, model: LanguageModel, seen: Array, targets: Array) -> Array:
    if settings.critic_sees == "input":
        return seen
    known = [jax.nn.one_hot(targets, model.sizes.vocabulary)]
    if settings.critic_sees == "exit":
        known.append(model.losses(model.exit(seen), jnp.broadcast_to(targets, seen.shape[:2]))[..., None])
    known = [jnp.broadcast_to(each, (*seen.shape[:2], each.shape[-1])) for each in known]
    return jax.lax.stop_gradient(jnp.concatenate([seen, *known], axis=-1))


def expected(settings: Settings, baseline: Baseline, routing: Routing, known: Known, losses: Array) -> Expected:
    """For losses `(r b, t)`, the draws one after the other.

    Beside what earlier batches told, several draws of a batch tell each other how much harder it was than that: every
    draw has the mean of the others' advantages subtracted, which does not depend on its own, and of a token is the same
    under every expert.
    """
    draws, losses = settings.draws_of_batch, jax.lax.stop_gradient(losses)
    if settings.credit_by_token is None:
        advantage = jnp.mean(losses.reshape(draws, -1), axis=1) - baseline.mean
        more = _others(advantage)
        return Expected(baseline.mean + more, advantage - more)
    credit = losses_to_go(losses, settings.credit_by_token).reshape(-1)
    tables = jax.vmap(_CRITIC.baseline)(baseline.critic, known.critics)
    if known.last is not None:
        tables = tables.at[-1].set(known.last)
    own = jnp.take_along_axis(tables, routing.expert[..., None], axis=-1)[..., 0]
    tables, advantage = (_by_draw(found, draws) for found in (tables, credit - own))
    more = _others(advantage)
    return Expected(tables + more[..., None], advantage - more)


def learn(settings: Settings, baseline: Baseline, record: BlockRecord, known: Known, losses: Array) -> Baseline:
    """The baseline after a batch that it has been used for."""
    losses, routing = jax.lax.stop_gradient((losses, record.routing))
    advantage = expected(settings, baseline, routing, known, losses).advantage
    critic, student = baseline.critic, baseline.student
    if settings.credit_by_token is not None:
        credit = losses_to_go(losses, settings.credit_by_token).reshape(-1)
        critic = jax.vmap(lambda *batch: _CRITIC.update(batch[0], batch[1], credit, batch[2]))(
            critic, routing, known.critics
        )
    if student is not None:
        student = learn_outputs(settings, student, record)
    variance = _running(baseline.variance, jnp.mean(advantage**2))
    return Baseline(critic, student, _running(baseline.mean, jnp.mean(losses)), variance)


def _by_draw(of_layers: Array, draws: int) -> Array:
    """`(l, r n, ...)` to `(r, l, n, ...)`."""
    layers = of_layers.shape[0]
    return jnp.moveaxis(of_layers.reshape(layers, draws, -1, *of_layers.shape[2:]), 1, 0)


def _others(advantage: Array) -> Array:
    """For each draw, along the first axis, the mean over the others; 0 for a single one, which has no other."""
    return (jnp.sum(advantage, axis=0) - advantage) / max(1, advantage.shape[0] - 1)


def _running(mean: Array, new: Array) -> Array:
    return _MEMORY * mean + (1 - _MEMORY) * new
