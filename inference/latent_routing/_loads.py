"""Who is asked for how much, and computes it: the experts that the estimators' own draws call on."""

import jax
import numpy as np
from jax import Array
from numpyro import handlers

from inference.latent_routing._estimators import Estimator, loss_of
from models import latent_routing as lr

_DRAWS = 20


def loads(estimator: Estimator, particles: int, params: lr.Params, x: Array, y: Array) -> dict[str, np.ndarray]:
    """`demand`, `load` and `busiest` of a `Fit`, from draws of every start's guide."""
    (starts, n), k = y.shape, params["noise"].shape[1]
    if estimator.enumerates:
        everything = np.full((starts, k), float(n))
        return {"demand": everything, "load": everything, "busiest": everything[:, 0]}
    demand = _demand(estimator, particles, params, x, y)
    load = np.minimum(demand, estimator.capacity(n, k))  # the surplus is skipped
    return {"demand": demand.mean(axis=1), "load": load.mean(axis=1), "busiest": load.max(axis=2).mean(axis=1)}


def _demand(estimator: Estimator, particles: int, params: lr.Params, x: Array, y: Array) -> np.ndarray:
    """`(starts, draws, k)`: how many datapoints each draw sends to each expert, seen from inside the model."""
    (starts, n), k = y.shape, params["noise"].shape[1]
    loss = loss_of(estimator, n, k, particles)
    seen: list[np.ndarray] = []

    def watched(x: Array, y: Array) -> None:
        with handlers.trace() as drawn:
            lr.model(x, y)
        jax.debug.callback(lambda z: seen.append(np.bincount(z, minlength=k)), drawn["z"]["value"])

    run = jax.jit(lambda key, params, x, y: loss.loss(key, params, watched, lr.guide, x, y))
    counts = []
    for start in range(starts):
        one = jax.tree.map(lambda leaf, start=start: leaf[start], (params, x, y))
        for key in jax.random.split(jax.random.key(0), _DRAWS):
            jax.block_until_ready(run(key, *one))
        jax.effects_barrier()
        counts.append(np.stack(seen))
        seen.clear()
    return np.stack(counts)
