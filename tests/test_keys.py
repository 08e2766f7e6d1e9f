"""Keys of every generator, typed and as bare words: one answer everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment, matching_log_prob
from gumbel_moe.routing import GumbelMatchingRouter, IndependentRouter, SkipRouter

LOGITS = jnp.array([[0.0, 0.5], [1.0, 0.0], [0.2, 0.0], [0.0, 0.0]])
VALUE = np.array([0, 0, 1, 1])
DRAWS = {
    "SkipAssignment": lambda key: SkipAssignment(LOGITS, 2).sample(key, (3,)),
    "GumbelMatching": lambda key: GumbelMatching(LOGITS, 2).sample(key, (3,)),
    "UniformAssignment": lambda key: UniformAssignment(4, (3, 5)).sample(key, (3,)),
    "conditionals": lambda key: GumbelMatching(LOGITS, 2).sample_with_conditionals(key)[1],
    "independent": lambda key: IndependentRouter()(key, LOGITS).expert,
    "skip": lambda key: SkipRouter(2)(key, LOGITS).expert,
    "gumbel_matching": lambda key: GumbelMatchingRouter(2)(key, LOGITS).weight,
}
EVERYWHERE = DRAWS | {
    "matching_log_prob": lambda key: matching_log_prob(LOGITS, VALUE, 2, key=key).value,
    "log_prob_with_error": lambda key: GumbelMatching(LOGITS, 2).log_prob_with_error(VALUE, key=key).value,
}
IMPLS = ["threefry2x32", "rbg", "unsafe_rbg"]


@pytest.mark.parametrize("impl", [IMPLS[0], *(pytest.param(impl, marks=pytest.mark.slow) for impl in IMPLS[1:])])
def test_one_answer_for_every_form_of_a_key(impl):
    with jax.default_prng_impl(impl):
        bare = jax.random.PRNGKey(7)
    typed = jax.random.key(7, impl=impl)
    for name, draw in DRAWS.items():
        expected = draw(typed)
        np.testing.assert_array_equal(jax.jit(draw)(typed), expected, err_msg=name)
        with jax.default_prng_impl(impl):
            np.testing.assert_array_equal(draw(bare), expected, err_msg=name)
            np.testing.assert_array_equal(draw(np.asarray(bare)), expected, err_msg=name)
    assert (DRAWS["GumbelMatching"](jax.random.key(8, impl=impl)) != DRAWS["GumbelMatching"](typed)).any()


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_is_no_key(name):
    words = jax.random.PRNGKey(0, impl="rbg")
    for key, message in [
        (0, "key must be a JAX key such as jax.random.key"),
        (jnp.zeros(2), "key must be a JAX key such as jax.random.key"),
        (jax.random.split(jax.random.key(0)), r"key must be a single JAX key, got \(2,\) of them; use jax\.vmap"),
        (words, r"key must be of the default generator, .* got shape \(4,\); .* jax\.random\.wrap_key_data"),
    ]:
        with pytest.raises(TypeError, match=message):
            EVERYWHERE[name](key)
        if name in DRAWS and not isinstance(key, int):
            with pytest.raises(TypeError, match=message):
                jax.jit(DRAWS[name])(key)
