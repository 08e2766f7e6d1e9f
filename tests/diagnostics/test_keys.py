"""What is no key is refused in the words of the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_unbiased, compare_variance, routing_report
from gumbel_moe.routing import SkipRouter


def normal(key):
    return jax.random.normal(key, (2,))


@pytest.mark.parametrize("key", [0, None, 1.5, "key", np.zeros(3), "many"])
def test_what_is_no_key_is_named(key):
    given = jax.random.split(jax.random.key(0)) if isinstance(key, str) and key == "many" else key
    for call in (
        lambda: check_unbiased(normal, jnp.zeros(2), given),
        lambda: compare_variance({"one": normal, "two": normal}, given),
        lambda: routing_report(SkipRouter(2), jnp.zeros((4, 2)), given),
    ):
        with pytest.raises(
            TypeError, match=r"^key must be a (JAX key such as jax.random.key\(0\), got|single JAX key)"
        ):
            call()
