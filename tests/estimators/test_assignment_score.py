"""`assignment_score_loss` against enumeration of all assignments of two layers with attention: what is unbiased, and
how large the bias of everything else is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gumbel_moe.diagnostics import check_unbiased
from gumbel_moe.distributions import enumerate_assignments, matching_log_prob, outcome_probabilities
from gumbel_moe.estimators import assignment_score_loss, at_market_prices, losses_to_go, score_function_loss
from gumbel_moe.routing import ExpertChoiceRouter, GumbelMatchingRouter, IndependentRouter, Routing, SkipRouter
from tests.estimators import coupled

N, K, SHAPE = coupled.N, coupled.K, coupled.SHAPE
TABLES = [jax.random.normal(jax.random.key(number), (N, K)) for number in (11, 12)]
MEAN = 11.4  # about what is lost, so that there is less noise
TO_GO = np.array([[23.0, 11.0]] * 2)


def tables(path):
    return [MEAN + table.astype(path.losses.dtype) for table in TABLES]


def to_go(path):
    return jnp.asarray(TO_GO, path.losses.dtype)


def score(baseline=MEAN, **arguments):
    return lambda path: assignment_score_loss(path.routings, path.losses, baseline, **arguments)


def exact_score(path):
    return assignment_score_loss(path.whole, path.losses, MEAN)


def first_order(path):
    return assignment_score_loss(coupled.first_order(path), path.losses, MEAN)


def with_credit(gamma):
    return lambda path: assignment_score_loss(path.routings, path.losses, to_go(path), credit=gamma)


# For each process what is unbiased, and what is not, by names.
RIGHT = {
    "independent": {
        "whole": score(None),
        "credit 1": with_credit(1.0),
        "tables": lambda path: assignment_score_loss(path.routings, path.losses, tables(path), credit=1.0),
    },
    "skip": {
        "whole": score(),
        "tables": lambda path: assignment_score_loss(path.routings, path.losses, tables(path)),
        "scalars": exact_score,
    },
    "gumbel_matching": {"scalars": exact_score},
}
WRONG = {
    "independent": {"credit .5": with_credit(0.5), "credit 0": with_credit(0.0)},
    "skip": {"interference dropped": with_credit(1.0)},
    "gumbel_matching": {"first order": first_order, "log p": score()},
}
ROUTERS = {
    "independent": IndependentRouter(),
    "skip": SkipRouter(coupled.CAPACITY),
    "gumbel_matching": GumbelMatchingRouter(coupled.CAPACITY, floor=0.0),
}


def gradients(function):
    """Of a function from parameters to a dict of scalars: the dict of their gradients."""
    return jax.jit(jax.jacrev(function))


def bias(found, name):
    """Of the routers' gradient, relative to it."""
    exact = found["exact"]["routers"]
    return float(jnp.linalg.norm(found[name]["routers"] - exact) / jnp.linalg.norm(exact))


@pytest.mark.parametrize(
    "name", ["skip", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gumbel_matching", "independent"))]
)
def test_mean_over_all_assignments(name):
    """No sampling error, float64: the right ones are exact, the wrong ones are far off."""
    terms = RIGHT[name] | WRONG[name]
    mean = coupled.enumerated(name, lambda path: {key: term(path) for key, term in terms.items()})
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), coupled.parameters())
        found = gradients(mean)(params)
        for key in RIGHT[name]:
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-9), found[key], found["exact"])
        assert all(bias(found, key) > 0.05 for key in WRONG[name])


@pytest.mark.slow
def test_gates_do_not_replace_the_score():
    """Gate times output, differentiated without a score: biased for the expected loss of the gated network itself."""
    mean = coupled.enumerated("gumbel_matching", lambda path: {"gates": jnp.mean(path.losses)}, gated=True)
    assert bias(gradients(mean)(coupled.parameters()), "gates") > 0.1


def sampled(name, terms):
    """From a key to the gradients of `terms` at one draw."""

    def surrogates(params, key):
        keys = jax.random.split(key)

        def route(number, logits):
            routing = ROUTERS[name](keys[number], logits)
            if name != "gumbel_matching":
                return routing, jnp.sum(routing.log_prob)
            return routing, coupled.gumbel_matching(logits, routing.expert)[1]

        path = coupled.forward(params, route)
        return {key: term(path) for key, term in terms.items()}

    return jax.jit(lambda key: jax.jacrev(surrogates)(coupled.parameters(), key))


def check(name, terms):
    exact = gradients(coupled.enumerated(name, lambda path: {}))(coupled.parameters())["exact"]
    truth = dict.fromkeys(terms, exact)
    return check_unbiased(sampled(name, terms), truth, jax.random.key(0), draws=4000, chains=4)


def test_independent_draws():
    """One program: the z-scores of what is unbiased are below the limit (but with probability 1e-6; seeds are fixed),
    those of what is not are above.
    """
    report = check("independent", {"credit 1": with_credit(1.0), "credit 0": with_credit(0.0)})
    z = report.summary["z"].abs()
    wrong = np.array(["credit 0" in str(parameter) for parameter in z.index])
    assert z[~wrong].max() < report.limit < z[wrong].max()


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_draws_of_the_routers(name):
    """An unbiased estimator fails with probability 1e-6; seeds are fixed."""
    assert check(name, RIGHT[name]).passed
    for key, term in WRONG[name].items():
        assert not check(name, {key: term}).passed, key


@pytest.mark.slow
def test_the_value_is_the_mean_loss():
    routing = SkipRouter(2)(jax.random.key(0), jnp.zeros((N, K)))
    losses = jnp.arange(4.0).reshape(SHAPE)
    for given in ({}, {"credit": 0.5}, {"baseline": jnp.ones((N, K))}):
        assert assignment_score_loss([routing, routing], losses, **given) == 1.5


@pytest.mark.slow
def test_first_order_bias_falls_with_the_datapoints_of_an_expert():
    """One layer, all matchings of `n` datapoints: the bias is about in inverse proportion to `n / k`."""
    found = []
    for n in (4, 12):
        rng = np.random.default_rng(0)
        logits = jnp.asarray(rng.normal(size=(n, K)), jnp.float32)
        values = enumerate_assignments(n, n // K, K)
        losses = jnp.asarray(rng.normal(size=(n, K)), jnp.float32)[jnp.arange(n), values]
        exact_prob = outcome_probabilities(logits, n // K)
        mean = jnp.sum(exact_prob * losses.mean(axis=1))

        def surrogate(logits, value, losses, n=n, mean=mean):
            log_probs = jax.nn.log_softmax(logits)
            ones = jnp.ones(n)
            routing = Routing(value, ones > 0, ones, log_probs[jnp.arange(n), value], ones, log_probs)
            first = assignment_score_loss(at_market_prices(routing, n // K), losses, mean)
            return jnp.stack([first, assignment_score_loss(matching_log_prob(logits, value, n // K).value, losses)])

        each = jax.jit(jax.vmap(jax.jacrev(surrogate), (None, 0, 0)))(logits, values, losses)
        first, exact = jnp.tensordot(exact_prob, each, 1)
        found.append(float(jnp.linalg.norm(first - exact) / jnp.linalg.norm(exact)))
    assert 0.1 < found[0] < 0.4
    assert found[1] < found[0] / 2


def test_independent_draws_of_one_layer_without_attention():
    """Credit 0 and one layer: the same as `score_function_loss`."""
    logits = jax.random.normal(jax.random.key(0), (N, K))
    losses = jax.random.normal(jax.random.key(1), (N, K))

    def both(logits, losses, baseline):
        routing = IndependentRouter()(jax.random.key(2), logits)
        own = jnp.take_along_axis(losses, routing.expert[:, None], axis=1)[:, 0]
        mine = assignment_score_loss(routing, own.reshape(SHAPE), baseline, credit=0.0)
        return mine - score_function_loss(routing, own, baseline)

    differences = jax.jit(jax.value_and_grad(both, (0, 1)))(logits, losses, TABLES[0])
    jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf, 0, atol=1e-6), differences)


def test_tokens_that_take_no_part_count_nowhere():
    mask = jnp.array([[True, True], [True, False]])

    def loss(logits, poison, given):
        routing = SkipRouter(2)(jax.random.key(0), logits, mask=mask.reshape(-1))
        losses = jnp.array([[1.0, 2.0], [4.0, 0.0]]).at[1, 1].set(poison)
        baseline = jnp.full(SHAPE, 0.5).at[1, 1].set(poison)
        return assignment_score_loss(routing, losses, baseline, credit=1.0, mask=given)

    logits = jax.random.normal(jax.random.key(0), (N, K))
    clean = jax.jit(jax.value_and_grad(loss))(logits, 0.0, None)
    jax.tree.map(np.testing.assert_array_equal, clean, jax.jit(jax.value_and_grad(loss))(logits, jnp.nan, None))
    jax.tree.map(np.testing.assert_array_equal, clean, jax.jit(jax.value_and_grad(loss))(logits, jnp.nan, mask))
    np.testing.assert_allclose(clean[0], 7 / 3, rtol=1e-6)


@pytest.mark.parametrize("discount", [0.0, 0.3, 1.0])
def test_losses_to_go(discount):
    losses = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    expected = [[sum(discount ** (s - t) * row[s] for s in range(t, 5)) for t in range(5)] for row in losses]
    np.testing.assert_allclose(losses_to_go(losses, discount), expected, rtol=1e-5)
    assert losses_to_go(jnp.zeros((2, 0)), discount).shape == (2, 0)


def test_market_prices():
    """Loads are the capacities; with free places no more than that, and experts that have some left cost nothing."""
    logits = 2 * jax.random.normal(jax.random.key(0), (12, 3)) + jnp.array([2.0, 0.0, -2.0])
    routing = IndependentRouter()(jax.random.key(1), logits)  # of any: the prices do not depend on the draw
    for capacity in (4, (6, 4, 2), (5, 9, 9)):
        cleared = at_market_prices(routing, capacity, iterations=200)
        load = jnp.sum(jnp.exp(cleared.log_probs), axis=0)
        prices = (routing.log_probs - cleared.log_probs)[0]
        if sum(np.broadcast_to(capacity, 3)) == 12:
            np.testing.assert_allclose(load, np.broadcast_to(capacity, 3), rtol=1e-4)
        else:
            np.testing.assert_allclose(load[0], 5, rtol=1e-4)
            np.testing.assert_allclose(prices[1], prices[2], rtol=1e-5)
            assert prices[0] > prices[1]
        own = jnp.take_along_axis(cleared.log_probs, routing.expert[:, None], axis=1)[:, 0]
        np.testing.assert_array_equal(cleared.log_prob, own)


def test_market_prices_leave_out_who_takes_no_part():
    logits, mask = jax.random.normal(jax.random.key(0), (6, 2)), jnp.arange(6) < 4
    few = at_market_prices(IndependentRouter()(jax.random.key(1), logits[:4]), 2, iterations=200)
    padded = at_market_prices(IndependentRouter()(jax.random.key(1), logits, mask=mask), 2, iterations=200)
    np.testing.assert_allclose(padded.log_probs[:4], few.log_probs, atol=1e-5)
    assert jnp.isneginf(padded.log_probs[4:]).all()
    assert not padded.log_prob[4:].any()


def test_errors():
    routing = IndependentRouter()(jax.random.key(0), jnp.zeros((N, K)))
    losses = jnp.ones(SHAPE)

    def refused(message, *arguments, error=ValueError, **named):
        with pytest.raises(error, match=message):
            assignment_score_loss(*arguments, **named)

    refused(r"losses must have shape \(..., t\)", routing, 1.0)
    refused(r"one for each datapoint of routing, got shape \(2, 3\) for 4", routing, jnp.ones((2, 3)))
    refused("a scalar or have the shape of losses", jnp.zeros(3), losses)
    refused("has no tokens for a credit", jnp.zeros(()), losses, credit=1.0)
    refused("has no tokens for a baseline of shape", jnp.zeros(()), losses, jnp.ones(SHAPE))
    refused("discount must be a scalar from 0 to 1, got 1.5", routing, losses, credit=1.5)
    refused(r"baseline must be a scalar or have shape \(2, 2\), or \(4, 2\)", routing, losses, jnp.ones(3))
    refused("a scalar or have shape", jnp.zeros(SHAPE), losses, jnp.ones((N, K)))
    refused("one for each of 2, got 1", [routing, routing], losses, [1.0])
    refused("mask must be bool", routing, losses, mask=jnp.ones(SHAPE))
    several = IndependentRouter(experts_per_datapoint=2)(jax.random.key(0), jnp.zeros((N, K)))
    refused("must have one expert per datapoint", several, losses)
    chosen = ExpertChoiceRouter(2)(jax.random.key(0), jnp.zeros((N, K)))
    refused("must be a Routing, a log-probability", [chosen], losses, error=TypeError)
    refused("must be a Routing, a log-probability", chosen, losses, error=TypeError)
    with pytest.raises(ValueError, match="of several no probability is known"):
        at_market_prices(several, 2)
    with pytest.raises(TypeError, match="must be a Routing"):
        at_market_prices(jnp.zeros(3), 2)
