"""All routers by name, logits for them, and what several tests need to know about them."""

import jax
import jax.numpy as jnp
import numpy as np

from gumbel_moe.routing import ROUTERS, make_router

# At (8, 3) the matchings have a free place, the others drop somebody.
_PLACES = {"gumbel_matching": 3, "base": 3}
ALL = {name: make_router(name, _PLACES.get(name, 2)) for name, entry in ROUTERS.items() if entry.kind != "uncorrected"}
WEIGHTED = {name: router for name, router in ALL.items() if ROUTERS[name].kind == "weighted"}
ONE_EXPERT = {name: router for name, router in ALL.items() if ROUTERS[name].one_expert}
TOP_ONE = {name: router for name, router in ONE_EXPERT.items() if name not in WEIGHTED}
# Routers whose every choice depends on the whole batch.
COUPLED = {"gumbel_matching", "base", "sinkhorn", "expert_choice"}

KEY = jax.random.key(5)


def logits(n=8, k=3, seed=0, scale=1.0, dtype=None):
    """Skewed towards the first expert, in the default float width unless `dtype` is given."""
    rng = np.random.default_rng([seed, n, k])
    values = scale * (rng.normal(size=(n, k)) + 1.5 * (np.arange(k) == 0))
    return jnp.asarray(values, dtype if dtype is not None else jnp.result_type(float))


def forbidding(n=8, k=3, seed=0):
    """Logits with a forbidden expert for most datapoints; a balanced assignment is left."""
    values = np.asarray(logits(n, k, seed), np.float64)
    values[np.arange(n - 1), (np.arange(n - 1) + 1) % k] = -np.inf
    return jnp.asarray(values, jnp.result_type(float))


def softmax(values):
    values = np.asarray(values, np.float64)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def first_come(expert, capacity):
    """Which datapoints stay when every expert takes them in the order of the batch: one after the other."""
    room = list(capacity)
    kept = []
    for j in expert:
        kept.append(room[j] > 0)
        room[j] -= 1
    return kept
