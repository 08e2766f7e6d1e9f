"""Held-out text under every way of routing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from inference.language._forward import forward
from inference.language._metrics import traffic
from inference.language._settings import Settings
from inference.language._step import TrainState
from models.data import even_windows

_KEY = 7  # of the draws of an evaluation: always the same


class Evaluation:
    """Compiled once, for the same windows of held-out text each time."""

    def __init__(self, settings: Settings, held_out: np.ndarray, mesh: Mesh | None = None) -> None:
        self._settings, self._method, self._mesh = settings, settings.method, mesh
        windows = even_windows(held_out, settings.windows, settings.context + 1)
        batches = max(1, len(windows) // settings.batch)  # as many sequences in each as in training
        windows = np.resize(windows, (batches, settings.batch, settings.context + 1))
        self._windows = windows
        self._run = {way: jax.jit(lambda state, way=way: self._batches(way, state)) for way in self._method.ways()}

    def __call__(self, state: TrainState) -> dict[str, dict[str, float]]:
        """For each way: `bits_per_byte`, and the metrics of its routings, means over the batches."""
        parts = TrainState(state.model, None, state.router_states, None, state.step, state.key)
        return {way: {name: float(value) for name, value in run(parts).items()} for way, run in self._run.items()}

    def _batches(self, way: str, state: TrainState) -> dict[str, Array]:
        settings, method = self._settings, self._method
        router = method.router_for(way, settings.tokens_of_group, settings.capacity)
        states = method.states_for(way, state.router_states)
        if way == "argmax":
            states = state.model.init_states(router)

        def one(numbered: tuple[Array, Array]) -> dict[str, Any]:
            number, windows = numbered
            key, windows = jax.random.fold_in(jax.random.key(_KEY), number), windows.astype(jnp.int32)
            losses, record = forward(settings, self._mesh, state.model, key, windows, router, states)
            return {"bits_per_byte": jnp.mean(losses) / jnp.log(2.0), **traffic(record.routing)}

        numbers = jnp.arange(self._windows.shape[0])
        return jax.tree.map(jnp.mean, jax.lax.map(one, (numbers, self._windows)))
