"""Continue a text, byte by byte."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from inference.language._settings import Settings
from inference.language._step import TrainState, first_state
from inference.training.checkpoints import Checkpoints


def load_state(settings: Settings, folder: Path) -> TrainState | None:
    """The last whole checkpoint of a run; None where there is none."""
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.latest(jax.jit(lambda: first_state(settings))())


def generate(
    settings: Settings, state: TrainState, prompt: bytes, number: int, *, way: str, temperature: float, seed: int
) -> bytes:
    """`number` bytes after `prompt`, each drawn from what the model says at a temperature; 0 takes the most probable.

    The network sees the last `settings.context` bytes. Routed token by token (`argmax`, `prices`, `bias`), what is
    written does not depend on what else is routed with it.
    """
    method, context = settings.method, settings.context
    router = method.router_for(way, context, max(1, settings.capacity * context // settings.tokens_of_group))
    states = method.states_for(way, state.router_states)
    if way == "argmax":
        states = state.model.init_states(router)

    @jax.jit
    def following(key: jax.Array, window: jax.Array, last: jax.Array) -> jax.Array:
        for_routing, for_byte = jax.random.split(key)
        logits = state.model(for_routing, window[None], router, states).logits[0, last]
        drawn = jax.random.categorical(for_byte, logits / jnp.maximum(temperature, 1e-6))
        return jnp.where(temperature > 0, drawn, jnp.argmax(logits))

    text = list(prompt or b"\n")
    for position in range(number):
        recent = text[-context:]
        window = jnp.asarray(np.array(recent + [0] * (context - len(recent)), np.int32))
        key = jax.random.fold_in(jax.random.key(seed), position)
        text.append(int(following(key, window, len(recent) - 1)))
    return bytes(text[len(prompt or b"\n") :])


def write(text: bytes) -> None:
    """To standard output, what is no UTF-8 shown as such."""
    sys.stdout.write(text.decode("utf-8", errors="backslashreplace") + "\n")
