"""One training step as a pure function of a state."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from gumbel_moe.distributions import matching_log_prob
from gumbel_moe.estimators import LossCritic, assignment_score_loss, at_market_prices, losses_to_go
from gumbel_moe.routing import Routing, capacity_for, load_balancing_loss
from inference.language._forward import by_group, forward
from inference.language._methods import Method
from inference.language._metrics import mean_entropy, traffic
from inference.language._optimiser import is_router, make_optimiser
from inference.language._settings import Settings
from models.data import draw_windows
from models.transformer import BlockRecord, LanguageModel

_MEMORY = 0.99  # of the running means of the score's loss and spread
_CRITIC = LossCritic(lambda params, x: x @ params["weight"] + params["bias"], optax.adam(3e-3))


class Baseline(NamedTuple):
    """What is known of the losses before a batch is drawn."""

    critic: Any
    """Of every layer, stacked: a linear map from what its router sees to a token's credit under each expert."""
    mean: Array
    """`()` running mean of the batches' losses."""
    variance: Array
    """`()` running mean of the squared advantages."""


class TrainState(NamedTuple):
    """All that the next step depends on."""

    model: LanguageModel
    optimiser: Any
    router_states: Any
    baseline: Baseline | None
    """None for methods without a score."""
    step: Array
    """Also the position in the data: step `t` draws its windows from `fold_in(key, t)`."""
    key: Array


def capacity_of(settings: Settings) -> int:
    """Of an expert, in a group of a batch of training."""
    return capacity_for(settings.tokens_of_group, settings.experts, settings.capacity_factor)


def first_state(settings: Settings) -> TrainState:
    """Before the first step."""
    for_model, for_steps = jax.random.split(jax.random.key(settings.seed))
    model, method = LanguageModel(for_model, settings.sizes), settings.method
    states = model.init_states(method.router(capacity_of(settings)))
    baseline = _first_baseline(settings) if method.learns == "score" else None
    optimiser = make_optimiser(settings).init(eqx.filter(model, eqx.is_array))
    return TrainState(model, optimiser, states, baseline, jnp.zeros((), jnp.int32), for_steps)


def train_step(
    settings: Settings, state: TrainState, text: Array, mesh: Mesh | None = None
) -> tuple[TrainState, dict[str, Array]]:
    """The next state, and the metrics of the step, scalars."""
    method = settings.method
    for_windows, for_network = jax.random.split(jax.random.fold_in(state.key, state.step))
    windows = draw_windows(for_windows, text, settings.batch, settings.context + 1).astype(jnp.int32)
    router = method.router(capacity_of(settings))

    def loss(model: LanguageModel) -> tuple[Array, tuple[Array, BlockRecord]]:
        losses, record = forward(settings, mesh, model, for_network, windows, router, state.router_states)
        return _objective(settings, mesh, state, model, record, losses), (losses, record)

    (_, (losses, record)), gradient = jax.value_and_grad(loss, has_aux=True)(state.model)
    updates, optimiser = make_optimiser(settings).update(gradient, state.optimiser, state.model)  # pyright: ignore[reportArgumentType]
    model = eqx.apply_updates(state.model, updates)
    baseline = None if state.baseline is None else _learn(settings, state.baseline, record, losses)
    router_states = state.router_states if record.router_state is None else record.router_state
    routers, rest = eqx.partition(gradient, is_router(gradient))
    metrics = {
        "loss": jnp.mean(losses),
        "bits_per_byte": jnp.mean(losses) / jnp.log(2.0),
        "gradient_of_routers": _norm(routers),
        "gradient_of_rest": _norm(rest),
        **traffic(record.routing),
    }
    return TrainState(model, optimiser, router_states, baseline, state.step + 1, state.key), metrics


def _objective(
    settings: Settings, mesh: Mesh | None, state: TrainState, model: LanguageModel, record: BlockRecord, losses: Array
) -> Array:
    """What is differentiated, a function of the model; the state is that before the step."""
    mean, method, baseline = jnp.mean(losses), settings.method, state.baseline
    if method.learns == "dense":
        return mean
    routings = of_layers(record.routing, settings.layers)
    if method.learns == "gate":
        added = 0.0
        if method.balance:
            balances = [jnp.mean(by_group(settings, mesh, load_balancing_loss, layer)) for layer in routings]
            added = method.balance * sum(balances)
        return mean + added + method.z_loss * jnp.sum(record.z_loss)  # pyright: ignore[reportArgumentType]
    assert baseline is not None
    if not settings.through_router:
        routings = _at_the_router(model, record, routings)
    told = baseline.mean
    if settings.credit is not None and not _whole(settings, method):
        told = list(jax.vmap(_CRITIC.baseline)(baseline.critic, record.router_input))
    scored: Any = [_scored(settings, mesh, method, layer) for layer in routings]
    with_score = assignment_score_loss(scored, losses, told, credit=_credit(settings, method))
    # The score term has no value: its advantages are brought to unit variance by what earlier batches had.
    score = (with_score - jax.lax.stop_gradient(with_score)) - (mean - jax.lax.stop_gradient(mean))
    scale = jnp.where(state.step < settings.score_from, 0, settings.score_scale) * jax.lax.rsqrt(baseline.variance)
    entropy = sum(mean_entropy(layer.log_probs) for layer in routings) / len(routings)
    return mean + scale * score - settings.entropy * entropy


def _at_the_router(model: LanguageModel, record: BlockRecord, routings: list[Routing]) -> list[Routing]:
    """The routings as functions of the routers' parameters alone: what is below them sees no noise of the scores, and
    misses what they would tell it.
    """
    networks = of_layers(model.blocks.experts.router_network, len(routings))
    found = []
    for network, seen, routing in zip(networks, record.router_input, routings, strict=True):  # pyright: ignore[reportArgumentType]
        log_probs = jax.nn.log_softmax(jax.vmap(network)(seen), axis=1)
        own = jnp.take_along_axis(log_probs, routing.expert[:, None], axis=1)[:, 0]
        found.append(routing._replace(log_prob=own, log_probs=log_probs))
    return found


def _scored(settings: Settings, mesh: Mesh | None, method: Method, layer: Routing) -> Routing | Array:
    """What was drawn, with the score of its process."""
    if method.name != "gumbel_matching":
        return layer
    capacity = capacity_of(settings)
    if settings.score == "whole":

        def log_prob(group: Routing) -> Array:
            return matching_log_prob(group.log_probs, group.expert, capacity).value

        return jnp.sum(by_group(settings, mesh, log_prob, layer))
    groups = by_group(settings, mesh, lambda group: at_market_prices(group, capacity), layer)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), groups)


def _learn(settings: Settings, baseline: Baseline, record: BlockRecord, losses: Array) -> Baseline:
    """The baseline after a batch that it has been used for."""
    losses = jax.lax.stop_gradient(losses)
    mean = jnp.mean(losses)
    if settings.credit is None or _whole(settings, settings.method):
        advantage, critic = mean - baseline.mean, baseline.critic
    else:
        credit = losses_to_go(losses, settings.credit).reshape(-1)
        predicted = jax.vmap(_CRITIC.baseline)(baseline.critic, record.router_input)
        own = jnp.take_along_axis(predicted, record.routing.expert[..., None], axis=-1)[..., 0]
        advantage = credit - own
        critic = jax.vmap(lambda *batch: _CRITIC.update(batch[0], batch[1], credit, batch[2]))(
            baseline.critic, jax.lax.stop_gradient(record.routing), record.router_input
        )
    variance = _running(baseline.variance, jnp.mean(advantage**2))
    return Baseline(critic, _running(baseline.mean, mean), variance)


def _first_baseline(settings: Settings) -> Baseline:
    sizes = settings.sizes
    zeros = {"weight": jnp.zeros((sizes.width, sizes.experts)), "bias": jnp.zeros(sizes.experts)}
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (sizes.layers, *leaf.shape)), zeros)
    uniform = jnp.log(jnp.float32(sizes.vocabulary))  # the loss of knowing nothing
    return Baseline(jax.vmap(_CRITIC.init)(stacked), uniform, jnp.ones(()))


def _whole(settings: Settings, method: Method) -> bool:
    """Whether what is scored is an assignment as a whole, which has no tokens to give credit to."""
    return method.name == "gumbel_matching" and settings.score == "whole"


def _credit(settings: Settings, method: Method) -> float | None:
    return None if _whole(settings, method) else settings.credit


def _norm(gradient: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))  # pyright: ignore[reportArgumentType]


def _running(mean: Array, new: Array) -> Array:
    return _MEMORY * mean + (1 - _MEMORY) * new


def of_layers(stacked: Any, layers: int) -> list[Any]:
    """Routings of all layers, one by one."""
    return [jax.tree.map(lambda leaf, layer=layer: leaf[layer], stacked) for layer in range(layers)]
