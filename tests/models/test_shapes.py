"""The shapes in the models' signatures are checked while the tests run."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from models.toy import ToyMixture


def test_wrong_shapes_are_refused():
    model = ToyMixture(jax.random.key(0))
    with pytest.raises(jaxtyping.TypeCheckError):
        model.logits(jnp.zeros(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        model.expert_outputs(jnp.zeros((3, 4, 1)))
