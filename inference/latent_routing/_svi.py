"""SVI of the latent routing from many starts at once, with exact figures along the way."""

import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpyro.infer import SVI
from numpyro.optim import optax_to_numpyro
from tqdm import tqdm

from inference.latent_routing._estimators import Estimator, loss_of
from inference.latent_routing._fit import Fit
from inference.latent_routing._loads import loads
from inference.shared.machine import COMPILER
from models import latent_routing as lr
from models.data import load_halves

_POINTS = 25
_LEARNING_RATE = 0.05
_TRACING = Lock()  # NumPyro has one stack of handlers for all threads: two that trace models at once upset each other


class Problem(NamedTuple):
    """For each start its own split of the images and its own starting point, stacked; the same for all estimators."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    params: lr.Params
    keys: Array


def problem(seed: int, starts: int, num_train: int) -> Problem:
    """The first starts do not depend on how many there are."""
    splits = [load_halves(seed + s, num_train) for s in range(starts)]
    train_x, train_y, test_x, test_y = (jnp.stack(part) for part in zip(*(s[:4] for s in splits), strict=True))
    keys = jax.vmap(lambda s: jax.random.split(jax.random.fold_in(jax.random.key(seed), s)))(jnp.arange(starts))
    return Problem((train_x, train_y), (test_x, test_y), jax.vmap(lr.starting_params)(keys[:, 0]), keys[:, 1])


class CompiledFit(NamedTuple):
    """An estimator on a problem, ready to run."""

    estimator: Estimator
    particles: int
    svi: SVI
    states: Any
    run: Callable[[Any, Array], tuple[Any, dict[str, Array]]]
    """So many steps of all starts, and exact figures."""


def compile_fit(estimator: Estimator, problem: Problem, particles: int, steps: int) -> CompiledFit:
    """Compile the training of all starts; it may run in a thread of its own."""
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, steps)
    optimiser = optax_to_numpyro(optax.chain(_keep_gradient(), optax.adam(schedule)))
    loss = loss_of(estimator, problem.train[0].shape[1], lr.NUM_EXPERTS, particles)
    svi = SVI(lr.model, lr.guide, optimiser, loss)

    def init(key: Array, params: lr.Params, x: Array, y: Array) -> Any:
        return svi.init(key, x, y, init_params=params)

    over_starts = jax.vmap(partial(_advance, svi, estimator), (0, 0, 0, None))
    run = jax.jit(lambda states, count: over_starts(states, problem.train, problem.test, count))
    with _TRACING:
        states = jax.vmap(init)(problem.keys, problem.params, *problem.train)
        traced = run.lower(states, jnp.int32(0))
    return CompiledFit(estimator, particles, svi, states, traced.compile(COMPILER))


def train_fit(program: CompiledFit, problem: Problem, steps: int) -> Fit:
    """All steps of all starts, and then the loads of their guides."""
    began = time.perf_counter()
    states, points, at = program.states, [], sorted({round(steps * i / _POINTS) for i in range(_POINTS + 1)})
    with tqdm(total=steps, desc=program.estimator.name, unit="step", disable=None, leave=False) as bar:
        for here, there in zip([0, *at], at, strict=False):
            states, figures = program.run(states, jnp.int32(there - here))
            points.append(jax.tree.map(np.asarray, figures))
            bar.update(there - here)
            bar.set_postfix(elbo=f"{np.median(points[-1]['elbo']):.4f}")
    with _TRACING:
        params = _params(program.svi, program.estimator, states)
        drawn = loads(program.estimator, program.particles, params, *problem.train)
    guide, posterior = (jax.vmap(table)(params, *problem.train) for table in (lr.log_q, lr.responsibilities))
    return Fit(
        router=program.estimator.name,
        kind=program.estimator.kind,
        at=np.array(at),
        curves={name: np.stack([point[name] for point in points], axis=1) for name in points[0]},
        params={name: np.asarray(param) for name, param in params.items()},
        wanted=np.asarray(jnp.exp(guide).sum(axis=1)),
        **drawn,
        away=np.asarray(jnp.abs(jnp.exp(guide) - posterior).sum(axis=2).mean(axis=1) / 2),
        seconds=round(time.perf_counter() - began, 2),
    )


def _advance(svi: SVI, estimator: Estimator, state: Any, train: Any, test: Any, count: Array) -> Any:
    """`count` steps of one start, and exact figures at the end."""
    constrain: Any = svi.constrain_fn

    def minus_elbo(unconstrained: lr.Params) -> Array:
        return -jnp.sum(lr.elbo(constrain(unconstrained), *train))

    def step(_: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
        state, total = carry
        exact = jax.grad(minus_elbo)(svi.optim.get_params(state.optim_state))
        state, _ = svi.update(state, *train)
        kept = state.optim_state[1][1][0]
        error = sum(jnp.sum((kept[name] - exact[name]) ** 2) for name in exact)
        return state, total + error / train[1].shape[0] ** 2

    state, total = jax.lax.fori_loop(0, count, step, (state, jnp.zeros(())))
    params = _params(svi, estimator, state)
    return state, {
        "elbo": jnp.mean(lr.elbo(params, *train)),
        "log_likelihood": jnp.mean(lr.log_likelihood(params, *train)),
        "test": jnp.mean(lr.log_likelihood(params, *test)),
        "squared_error": total / count,
    }


def _params(svi: SVI, estimator: Estimator, states: Any) -> lr.Params:
    """Those of the model and guide; where the guide was not trained, its exact ones."""
    params = svi.get_params(states)
    if estimator.name != "marginal":
        return params
    exact = lr.exact_recognition if params["noise"].ndim == 1 else jax.vmap(lr.exact_recognition)
    return {**params, "recognition": exact({name: params[name] for name in ("gate", "experts", "noise")})}


def _keep_gradient() -> Any:
    """An optimiser's first link that changes nothing, and whose state is the last gradient."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return updates, updates

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
