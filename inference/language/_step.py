"""One training step as a pure function of a state."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from gumbel_moe.distributions import matching_log_prob
from gumbel_moe.estimators import assignment_score_loss, at_market_prices
from gumbel_moe.routing import Routing, load_balancing_loss
from inference.language._baseline import Baseline, Known, expected, first_baseline, known_before, learn
from inference.language._forward import by_group, forward
from inference.language._methods import Method
from inference.language._metrics import mean_entropy, traffic
from inference.language._optimiser import is_router, make_optimiser
from inference.language._settings import Settings
from models.data import draw_windows
from models.transformer import BlockRecord, LanguageModel


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


def first_state(settings: Settings) -> TrainState:
    """Before the first step."""
    for_model, for_steps = jax.random.split(jax.random.key(settings.seed))
    model, method = LanguageModel(for_model, settings.sizes), settings.method
    states = model.init_states(method.router(settings.capacity))
    baseline = first_baseline(settings) if method.learns == "score" else None
    optimiser = make_optimiser(settings).init(eqx.filter(model, eqx.is_array))
    return TrainState(model, optimiser, states, baseline, jnp.zeros((), jnp.int32), for_steps)


def train_step(
    settings: Settings, state: TrainState, text: Array, mesh: Mesh | None = None
) -> tuple[TrainState, dict[str, Array]]:
    """The next state, and the metrics of the step, scalars."""
    method = settings.method
    for_windows, for_network = jax.random.split(jax.random.fold_in(state.key, state.step))
    windows = draw_windows(for_windows, text, settings.batch, settings.context + 1).astype(jnp.int32)
    windows = jnp.tile(windows, (settings.draws_of_batch, 1))
    router = method.router(settings.capacity)

    def loss(model: LanguageModel) -> tuple[Array, tuple[Array, BlockRecord, Known | None]]:
        losses, record = forward(settings, mesh, model, for_network, windows, router, state.router_states)
        baseline, targets = state.baseline, windows[:, 1:]
        known = None if baseline is None else known_before(settings, baseline, model, record, targets)
        return _objective(settings, mesh, state, model, record, known, losses), (losses, record, known)

    (_, (losses, record, known)), gradient = jax.value_and_grad(loss, has_aux=True)(state.model)
    updates, optimiser = make_optimiser(settings).update(gradient, state.optimiser, state.model)  # pyright: ignore[reportArgumentType]
    model = eqx.apply_updates(state.model, updates)
    baseline = state.baseline
    if baseline is not None and known is not None:
        baseline = learn(settings, baseline, record, known, losses)
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
    settings: Settings,
    mesh: Mesh | None,
    state: TrainState,
    model: LanguageModel,
    record: BlockRecord,
    known: Known | None,
    losses: Array,
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
    assert known is not None
    if not settings.through_router:
        routings = _at_the_router(model, record, routings)
    subtracted = expected(settings, baseline, record.routing, known, losses).subtracted
    scored = [_scored(settings, mesh, method, layer) for layer in routings]
    draws = settings.draws_of_batch
    with_score = jnp.zeros(())
    for draw, own in enumerate(losses.reshape(draws, settings.batch, -1)):
        layers = [_of_draw(layer, draw, draws) for layer in scored]
        told = subtracted[draw] if subtracted.ndim == 1 else list(subtracted[draw])
        with_score += assignment_score_loss(layers, own, told, credit=settings.credit_by_token) / draws
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
    """What was drawn, with the score of its process: a routing, or a log-probability for every group."""
    if method.name != "gumbel_matching":
        return layer
    capacity = settings.capacity
    if settings.score == "whole":

        def log_prob(group: Routing) -> Array:
            return matching_log_prob(group.log_probs, group.expert, capacity).value

        return by_group(settings, mesh, log_prob, layer)
    groups = by_group(settings, mesh, lambda group: at_market_prices(group, capacity), layer)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), groups)


def _of_draw(scored: Routing | Array, draw: int, draws: int) -> Routing | Array:
    """That part of a layer's, which has the draws of a batch one after the other."""
    part = jax.tree.map(lambda leaf: leaf.reshape(draws, -1, *leaf.shape[1:])[draw], scored)
    return part if isinstance(part, Routing) else jnp.sum(part)


def _norm(gradient: Any) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))  # pyright: ignore[reportArgumentType]


def of_layers(stacked: Any, layers: int) -> list[Any]:
    """Routings of all layers, one by one."""
    return [jax.tree.map(lambda leaf, layer=layer: leaf[layer], stacked) for layer in range(layers)]
