"""Problems with an enumerated gradient, and estimators of it: right ones and wrong ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gumbel_moe.estimators import RunningMeanState, exact_loss, score_function_loss
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter, SwitchRouter
from inference.training.methods import METHODS
from models import OneRoutedLayer
from models.data import bent_line, load_digits_split
from models.digits import DigitsMixture
from models.toy import ToyMixture


class Problem(NamedTuple):
    """A mixture as functions of its parameters."""

    params: Any
    logits: Callable[[Any], Any]
    outputs: Callable[[Any], Any]
    """`(n, k, out)`."""
    losses: Callable[[Any], Any]
    """`(n, out)` to `(n,)`."""
    capacity: int
    batch: tuple[Any, Any] | None = None
    """What a model's own methods want; None where it is no model."""

    def all_losses(self, params):
        return jax.vmap(self.losses, 1, 1)(self.outputs(params))

    def exact(self):
        # Compiled as one program, as one operation after the other takes longer.
        return jax.jit(jax.grad(lambda params: exact_loss(self.logits(params), self.all_losses(params))))(self.params)


def of_model(model: OneRoutedLayer, x, y, capacity: int) -> Problem:
    return Problem(
        model,
        lambda model: model.logits(x),
        lambda model: model.all_outputs(x),
        lambda outputs: model.losses(outputs, y),
        capacity,
        (x, y),
    )


def toy() -> Problem:
    """Twelve datapoints, four fifths of which the router would send to one line."""
    x = jnp.linspace(0.04, 0.96, 12)[:, None]
    model = jax.tree.unflatten(
        jax.tree.structure(ToyMixture(jax.random.key(0))),
        [jnp.array([0.5, -1.5]), jnp.array([0.1, 1.8]), jnp.array([1.0, 0.9])],
    )
    return of_model(model, x, bent_line(x), 6)


def digits() -> Problem:
    """A batch of 256 images, and a router of four times its initial weights: it has opinions."""
    split = load_digits_split(0)
    model = jax.jit(DigitsMixture)(jax.random.key(1))
    router = jax.tree.map(lambda leaf: 4 * leaf, model.router_network)
    model = jax.tree.unflatten(jax.tree.structure(model), [*jax.tree.leaves(model.experts), *jax.tree.leaves(router)])
    return of_model(model, split.train_x[:256], split.train_y[:256], 32)


def random(seed: int = 0) -> Problem:
    """Linear experts of two outputs for sixteen datapoints, squared error."""
    keys = jax.random.split(jax.random.key(seed), 4)
    x = jax.random.normal(keys[0], (16, 3))
    y = jax.random.normal(keys[1], (16, 2))
    params = {
        "router": {"weight": jax.random.normal(keys[2], (3, 3)), "bias": jnp.array([1.0, 0.0, -0.5])},
        "experts": [jax.random.normal(keys[3], (3, 3, 2))],
    }
    return Problem(
        params,
        lambda params: x @ params["router"]["weight"] + params["router"]["bias"],
        lambda params: jnp.einsum("nd,kde->nke", x, params["experts"][0]),
        lambda outputs: jnp.sum((outputs - y) ** 2, axis=1),
        6,
    )


PROBLEMS = {"toy": toy, "digits": digits, "random": random}
UNBIASED = ["independent", "skip", "gumbel_matching"]
BIASED = [
    "skip_uncorrected",
    "gumbel_matching_uncorrected",
    "switch",
    "straight_through",
    "wrong_sign",
    "reused_key",
    "no_key",
]
ROUTERS = {
    "independent": lambda capacity: IndependentRouter(),
    "skip": SkipRouter,
    "gumbel_matching": GumbelMatchingRouter,
    "skip_uncorrected": lambda capacity: SkipRouter(capacity, corrected=False),
    "gumbel_matching_uncorrected": lambda capacity: GumbelMatchingRouter(capacity, corrected=False),
}
BASELINE = 0.5


def estimator(problem: Problem, name: str):
    """The compiled estimator `key -> gradient` of that name."""
    if problem.batch is not None and name in METHODS:
        loss = trained(problem, name)
    else:
        loss = {
            "switch": gated,
            "straight_through": straight_through,
            "wrong_sign": wrong_sign,
            "reused_key": same_key_for_baseline,
            "no_key": no_key,
        }.get(name, weighted)
    return jax.jit(lambda key: jax.grad(lambda params: loss(problem, name, params, key))(problem.params))


def trained(problem, name):
    """The loss that `inference` trains a model with."""
    method = METHODS[name]
    x, y = problem.batch
    draws = method.kind in ("weighted", "uncorrected")
    state = RunningMeanState(jnp.array(BASELINE), jnp.array(1.0)) if draws else method.init_state(problem.params)
    return lambda _, __, model, key: method.loss(key, model, x, y, state, problem.capacity)[0]


def drawn(problem, name, params, key):
    routing = ROUTERS[name](problem.capacity)(key, problem.logits(params))
    return routing, jnp.take_along_axis(problem.all_losses(params), routing.expert[:, None], axis=1)[:, 0]


def weighted(problem, name, params, key):
    return score_function_loss(*drawn(problem, name, params, key), BASELINE)


def wrong_sign(problem, name, params, key):
    """The score term subtracted where it should be added."""
    routing, losses = drawn(problem, "skip", params, key)
    return 2 * jnp.mean(routing.weight * losses) - score_function_loss(routing, losses, BASELINE)


def same_key_for_baseline(problem, name, params, key):
    """The losses of a second draw as the baseline, made with the key of the first: it is the same draw."""
    _, second = drawn(problem, "independent", params, key)
    return score_function_loss(*drawn(problem, "independent", params, key), jax.lax.stop_gradient(second))


def no_key(problem, name, params, key):
    """Unbiased, if it used its key."""
    return weighted(problem, "skip", params, jax.random.key(7))


def straight_through(problem, name, params, key):
    """One expert forward, the gradient of the soft mixture of all backward."""
    probs = jax.nn.softmax(problem.logits(params), axis=1)
    hard = jax.nn.one_hot(jax.random.categorical(key, jnp.log(probs)), probs.shape[1])
    gates = hard + probs - jax.lax.stop_gradient(probs)
    return jnp.mean(problem.losses(jnp.einsum("nk,nko->no", gates, problem.outputs(params))))


def gated(problem, name, params, key):
    """Switch: the best expert's output times its gate, nothing of those dropped."""
    routing = SwitchRouter(problem.capacity)(key, problem.logits(params))
    own = jnp.take_along_axis(problem.outputs(params), routing.expert[:, None, None], axis=1)[:, 0]
    return jnp.mean(problem.losses((routing.gate * routing.kept)[:, None] * own))
