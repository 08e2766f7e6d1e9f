"""The count of kernel launches: of a program whose rounds are known, and of a matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.matching_launches import Launches, count
from gumbel_moe.matching import solve_matching


def counted(function, *args):
    launches = Launches()
    out = launches.run("", jax.make_jaxpr(function)(*args), args)
    return out, {loop.path: times for loop, times in launches.rounds.items()}, launches.total


def test_rounds_of_nested_loops_and_branches():
    def halve(x):
        return jax.lax.while_loop(lambda x: x > 1, lambda x: x / 2, x)

    def outer(x):
        def body(total, y):
            return jax.lax.cond(y > 4, lambda t: t + halve(y), lambda t: t, total), total

        return jax.lax.scan(body, 0.0 * x[0], x, reverse=True)

    x = jnp.array([8.0, 2.0, 16.0])
    out, rounds, total = counted(outer, x)
    np.testing.assert_array_equal(out[0], outer(x)[0])
    np.testing.assert_array_equal(out[1], outer(x)[1])
    bodies = [times for path, times in rounds.items() if path.endswith(":body")]
    tests = [times for path, times in rounds.items() if path.endswith(":test")]
    assert sum(bodies) == 3 + 4  # 8 and 16, halved until they are 1
    assert sum(tests) == 3 + 4 + 2
    assert max(rounds.values()) <= 9
    assert total > sum(bodies)


@pytest.mark.slow
def test_of_a_matching():
    scores = jax.random.normal(jax.random.key(0), (12, 3))
    launches = count(scores, 4)
    again = count(scores, 4)
    assert launches.rounds == again.rounds
    assert 10 < launches.total < 2000
    assert solve_matching(scores, 4).gap < 1e-5
