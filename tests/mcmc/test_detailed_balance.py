"""One update of `swap_and_move` from exact draws of an enumerated posterior: it must stay there, and flow both ways."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment, enumerate_assignments
from gumbel_moe.mcmc import swap_and_move
from gumbel_moe.mcmc._steps import run_steps
from gumbel_moe.mcmc._surrogate import decode, encode, surrogate
from tests.randomness import FALSE_FAIL_RATE

CHAINS = 10_000
N = 4
LOGITS = 1.5 * jax.random.normal(jax.random.key(0), (N, 2))
Y = jnp.array([-1.0, 0.5, 1.0, 2.0])
LOC, SKIPPED_LOC = jnp.array([-0.5, 1.5]), jnp.array([0.0, 0.7])
CASES = pytest.mark.parametrize(
    ("cls", "capacity", "local"),
    [
        pytest.param(GumbelMatching, (2, 2), True, marks=pytest.mark.slow),
        pytest.param(GumbelMatching, (3, 2), True, marks=pytest.mark.slow),
        pytest.param(GumbelMatching, (3, 2), False, marks=pytest.mark.slow),
        (SkipAssignment, (1, 2), True),
        (SkipAssignment, (2, 3), False),
        (UniformAssignment, (2, 2), True),
        (UniformAssignment, (3, 2), False),
        (UniformAssignment, (9, 2), True),
        (UniformAssignment, (9, 2), False),
    ],
)


def make_prior(cls, capacity, logits=LOGITS):
    if cls is UniformAssignment:
        return cls(N, capacity, validate_args=False)
    return cls(logits, capacity, validate_args=False)


def make_model(cls, capacity, local):
    def model():
        z = numpyro.sample("z", make_prior(cls, capacity))
        loc = jnp.where(z >= 0, LOC[jnp.where(z < 0, -1 - z, z)], SKIPPED_LOC[jnp.where(z < 0, -1 - z, z)])
        with numpyro.plate("data", N):
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=Y)
        if not local:  # a term of the whole assignment, of which the surrogate knows nothing
            numpyro.factor("neighbours", 0.8 * jnp.sum(z[1:] == z[:-1]))

    return model


def enumerated(cls, capacity, model):
    if cls is not SkipAssignment:
        values = enumerate_assignments(N, capacity)
    else:
        values = jnp.array(list(itertools.product(range(-2, 2), repeat=N)), jnp.int32)
        values = values[cls(LOGITS, capacity).support(values)]
    # Compiled as one program, as one operation after the other takes longer.
    log_densities = jax.jit(jax.vmap(lambda z: log_density(model, (), {}, {"z": z})[0]))
    log_joint = np.asarray(log_densities(values), np.float64)
    weight = np.exp(log_joint - log_joint.max())
    return values, weight / weight.sum()


def flows(update, values, probs):
    """Counts `(outcomes, outcomes)` of one update from exact draws."""
    start = jax.random.choice(jax.random.key(1), len(probs), (CHAINS,), p=jnp.asarray(probs, jnp.float32))
    end = jax.jit(lambda keys, z: jax.lax.map(lambda a: update(*a), (keys, z), batch_size=1000))(
        jax.random.split(jax.random.key(2), CHAINS), values[start]
    )
    index = {tuple(v): i for i, v in enumerate(values.tolist())}
    counts = np.zeros((len(probs), len(probs)))
    np.add.at(counts, (np.asarray(start), [index[tuple(v)] for v in end.tolist()]), 1)
    return counts


def p_values(counts, probs):
    """Of the distribution after the update, and of equal flows from each outcome to each other and back."""
    after = counts.sum(axis=0)
    common = probs * CHAINS > 5
    seen, expected = (np.append(x[common], x[~common].sum()) for x in (after, probs * CHAINS))
    stay = stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue
    there, back = counts[np.triu_indices(len(probs), 1)], counts.T[np.triu_indices(len(probs), 1)]
    often = there + back > 10
    both_ways = stats.chi2.sf(np.sum((there - back)[often] ** 2 / (there + back)[often]), often.sum())
    return stay, both_ways, 1 - np.trace(counts) / CHAINS


@CASES
def test_update_leaves_the_posterior_invariant_and_is_reversible(cls, capacity, local):
    model = make_model(cls, capacity, local)
    values, probs = enumerated(cls, capacity, model)
    gibbs_fn = swap_and_move(model, "z", num_steps=None if local or cls is SkipAssignment else 2)
    counts = flows(lambda key, z: gibbs_fn(key, {"z": z}, {})["z"], values, probs)
    stay, both_ways, moved = p_values(counts, probs)
    assert stay > FALSE_FAIL_RATE
    assert both_ways > FALSE_FAIL_RATE
    assert moved > 0.1


def test_surrogate_alone_is_rejected():
    model = make_model(GumbelMatching, (3, 2), False)
    values, probs = enumerated(GumbelMatching, (3, 2), model)

    def update(key, z):
        cheap = surrogate(model, "z", {}, z)
        code = encode(z, 2)
        load = jnp.sum(code[:, None] == jnp.arange(2), axis=0, dtype=jnp.int32)
        return decode(run_steps(key, cheap, code, load, 4)[0], 2)

    stay, _, _ = p_values(flows(update, values, probs), probs)
    assert stay < FALSE_FAIL_RATE


@pytest.mark.slow
def test_surrogate_is_exact_for_skip_uniform_and_equal_logits():
    """The differences of the surrogate's log-density between outcomes are the model's own."""
    for cls, logits, capacity in (
        (SkipAssignment, LOGITS, (1, 2)),
        (GumbelMatching, jnp.zeros((N, 2)), (2, 2)),
        (UniformAssignment, None, (2, 2)),
        (UniformAssignment, None, (3, 2)),
        (UniformAssignment, None, (9, 2)),
    ):

        def model(cls=cls, logits=logits, capacity=capacity):
            z = numpyro.sample("z", make_prior(cls, capacity, logits))
            with numpyro.plate("data", N):
                numpyro.sample("y", dist.Normal(LOC[jnp.where(z < 0, 0, z)], 1.0), obs=Y)

        values, probs = enumerated(cls, capacity, model)
        cheap = surrogate(model, "z", {}, values[0])

        def log_density_of(z, cheap=cheap):
            code = encode(z, 2)
            return cheap.log_density(code, jnp.sum(code[:, None] % 2 == jnp.arange(2), axis=0, dtype=jnp.int32))

        np.testing.assert_allclose(jax.nn.softmax(jax.jit(jax.vmap(log_density_of))(values)), probs, rtol=1e-4)
