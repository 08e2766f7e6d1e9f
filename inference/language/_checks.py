"""What is wrong with what a run was asked for, before anything is computed or written."""

import jax
import jax.numpy as jnp

from inference.language._settings import Settings
from models.data import Corpus


def check(settings: Settings, corpus: Corpus) -> None:
    """**Raises:** `ValueError` for sizes that do not fit each other, the text or the router."""
    sizes = settings.sizes
    for held, text in (("to train on", corpus.train), ("held out", corpus.held_out)):
        if text.size <= settings.context:
            raise ValueError(f"--context must be below the {text.size} bytes of {corpus.name} {held}")
    method, groups = settings.method, settings.groups
    if settings.tokens % groups:
        raise ValueError(f"--groups must divide the {settings.tokens} tokens of a batch, got {groups}")
    if method.learns == "dense":
        return
    if groups > 1 and not method.by_token:
        raise ValueError(f"--groups must be 1 for {settings.router}, whose experts choose from a batch, got {groups}")
    if settings.student and method.learns == "score" and (settings.credit_by_token != 0 or settings.gated):
        needs = "--credit 0, --score first-order and no --gated"
        raise ValueError(f"--student needs {needs}: it predicts a token's own loss, of an output as it is")
    # The router itself says what is wrong with a capacity; shapes suffice.
    router = method.router(settings.capacity)
    state = () if not hasattr(router, "update") else (router.init(sizes.experts),)
    logits = jax.ShapeDtypeStruct((settings.tokens_of_group, sizes.experts), jnp.float32)
    jax.eval_shape(lambda logits: router(jax.random.key(0), logits, *state), logits)
