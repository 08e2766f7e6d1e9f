"""Models with terms that the surrogate's table cannot hold: they are noticed, and the chain moves all the same."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from gumbel_moe.distributions import GumbelMatching
from gumbel_moe.mcmc import swap_and_move
from gumbel_moe.mcmc._surrogate import unseen_terms

N, KNOWN = 40, jnp.array([0, 1])
LOC = jnp.array([-2.0, 2.0])
TRUE = jnp.arange(N) % 2
Y = LOC[jnp.concatenate([KNOWN, TRUE])]
START = jnp.arange(N) // (N // 2)


def one_plate():
    """Known and unknown memberships in one plate, longer than the assignment."""
    z = numpyro.sample("z", GumbelMatching(jnp.zeros((N, 2)), N // 2))
    with numpyro.plate("data", N + 2):
        numpyro.sample("y", dist.Normal(LOC[jnp.concatenate([KNOWN, z])], 1.0), obs=Y)


def a_sum():
    """The same as one number, with an observation that has nothing to do with the assignment."""
    z = numpyro.sample("z", GumbelMatching(jnp.zeros((N, 2)), N // 2))
    numpyro.sample("other", dist.Normal(0.0, 1.0), obs=1.0)
    numpyro.factor("y", jnp.sum(dist.Normal(LOC[z], 1.0).log_prob(Y[2:])))


def two_plates():
    """The same as it should be written."""
    z = numpyro.sample("z", GumbelMatching(jnp.zeros((N, 2)), N // 2))
    with numpyro.plate("labelled", 2):
        numpyro.sample("y_known", dist.Normal(LOC[KNOWN], 1.0), obs=Y[:2])
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(LOC[z], 1.0), obs=Y[2:])


@pytest.mark.parametrize(("model", "unseen"), [(one_plate, ["y"]), (a_sum, ["y"]), (two_plates, [])])
def test_terms_without_an_axis_are_noticed(model, unseen):
    assert unseen_terms(model, "z", {}, START) == unseen
    assert jax.jit(lambda z: jnp.array(len(unseen_terms(model, "z", {}, z))))(START) == len(unseen)


def run(model, **options):
    update = swap_and_move(model, "z", **options)

    def step(z, key):
        z = update(key, {"z": z}, {})["z"]
        return z, z

    return np.asarray(
        jax.jit(lambda keys: jax.lax.scan(step, START, keys)[1])(jax.random.split(jax.random.key(0), 300))
    )


@pytest.mark.parametrize("model", [one_plate, a_sum, two_plates])
def test_chain_finds_the_memberships_by_default(model):
    """From half of them wrong. One wrong pair costs 16 nats, there are 400: the last draw is wrong in 5e-5 of runs."""
    assert (run(model)[-1] == np.asarray(TRUE)).all()


def test_a_long_round_without_the_table_stands_still():
    """Why the default is not one round of `n` steps: from the truth, every proposal exchanges too many."""
    z = run(one_plate, num_steps=N, num_rounds=1)
    assert (z[-1] != np.asarray(TRUE)).any()
