"""Programs for a GPU and a TPU, made on this machine: no custom call in them that only a CPU has."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from gumbel_moe import distributions, estimators, matching, routing
from gumbel_moe.distributions import GumbelMatching, SkipAssignment, UniformAssignment
from gumbel_moe.matching import _compiled

# What XLA itself, or JAX's plugin for it, brings to a GPU and to a TPU.
ALLOWED = r"cusolver_\w+|cu_lu_pivots_to_permutation|LuDecomposition|Eigh|Qr"
N, K = 4, 3
KEY = jax.random.key(0)
LOGITS = jnp.arange(N * K, dtype=jnp.float32).reshape(N, K)
VALUE = jnp.array([0, 1, 2, 0])
TOKENS = jnp.ones((N, 3))
CAPACITY = jnp.array([2, 3, 1])
SWITCH = routing.SwitchRouter(2)


def elbo(key, logits):
    def model():
        with numpyro.plate("data", N):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(K) / K))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.zeros(N))

    def guide():
        with numpyro.plate("data", N):
            numpyro.sample("z", dist.Categorical(logits=logits))

    return estimators.AssignmentELBO({"z": routing.SkipRouter(2)}).loss(key, {}, model, guide)


def stateful(router, key, logits):
    """One call and the state after it."""
    state = router.init(logits.shape[1])
    return router.update(state, router(key, logits, state))


def program_of(name):
    router = routing.make_router(name, 2)
    return partial(stateful, router) if routing.ROUTERS[name].stateful else router, KEY, LOGITS


NETWORK = estimators.shared_network(K, 1)
CRITIC = estimators.LossCritic(lambda params, x: x @ params, optax.sgd(0.1))
STUDENT = estimators.StudentExperts(lambda params, x: NETWORK.apply(params, x)[..., 0], optax.sgd(0.1))


def after(baseline, params, logits, *batch):
    """The loss of a batch, and the baseline's state after it."""
    return baseline.loss(baseline.init(*params), routing.SkipRouter(2)(KEY, logits), *batch)


# What is exported and computes: a function of arrays that goes through it.
PROGRAMS = {
    "solve_matching": (lambda s: matching.solve_matching(s, 2), LOGITS),
    "exchange_distances": (lambda s, z: matching.exchange_distances(s, z, 2), LOGITS, VALUE),
    "solve_matching of two each": (lambda s: matching.solve_matching(s, 3, experts_per_datapoint=2), LOGITS),
    "exchange_distances of two each": (
        lambda s, z: matching.exchange_distances(s, jnp.stack([z, (z + 1) % K], axis=1), 3),
        LOGITS,
        VALUE,
    ),
    "GumbelMatching.sample": (lambda a, key: GumbelMatching(a, 2).sample_with_conditionals(key), LOGITS, KEY),
    "GumbelMatching.log_prob": (lambda a, z: GumbelMatching(a, 2).log_prob(z), LOGITS, VALUE),
    "GumbelMatching.marginal_probs": (lambda a, key: GumbelMatching(a, 2).marginal_probs(key, 2), LOGITS, KEY),
    "SkipAssignment.sample": (lambda a, key: SkipAssignment(a, 2).sample(key), LOGITS, KEY),
    "SkipAssignment.log_prob": (lambda a, z: SkipAssignment(a, 2).log_prob(z), LOGITS, VALUE),
    "UniformAssignment.sample": (lambda c, key: UniformAssignment(N, c).sample(key), CAPACITY, KEY),
    "UniformAssignment.log_prob": (lambda c, z: UniformAssignment(N, c).log_prob(z), CAPACITY, VALUE),
    "UniformAssignment.entropy": (lambda c: UniformAssignment(N, c).entropy(), CAPACITY),
    "matching_log_prob": (
        lambda a, z: jax.grad(lambda a: distributions.matching_log_prob(a, z, 2).value)(a),
        LOGITS,
        VALUE,
    ),
    "matching_log_prob of five experts": (
        lambda a, z: distributions.matching_log_prob(a, z, 1, target_error=0.5),
        jnp.eye(5),
        jnp.arange(5),
    ),
    "outcome_probabilities": (lambda a: distributions.outcome_probabilities(a, 2), LOGITS),
    **{entry.made_by: program_of(name) for name, entry in routing.ROUTERS.items() if entry.kind != "uncorrected"},
    "as_one_batch": (routing.as_one_batch(SWITCH), KEY, LOGITS[None]),
    "dispatch": (lambda x, a: routing.dispatch(x, SWITCH(KEY, a), 2), TOKENS, LOGITS),
    "combine": (lambda x, a: routing.combine(x, SWITCH(KEY, a)), jnp.ones((K, 2, 3)), LOGITS),
    "mixture_output": (
        lambda a: routing.mixture_output(routing.SkipRouter(2, experts_per_datapoint=2)(KEY, a), jnp.ones((N, 2))),
        LOGITS,
    ),
    "GumbelMatchingRouter of two experts": (routing.GumbelMatchingRouter(3, experts_per_datapoint=2), KEY, LOGITS),
    "load": (lambda a: routing.load(SWITCH(KEY, a)), LOGITS),
    "load_balancing_loss": (lambda a: routing.load_balancing_loss(SWITCH(KEY, a)), LOGITS),
    "score_function_loss": (
        lambda a, y: estimators.score_function_loss(routing.SkipRouter(2)(KEY, a), y),
        LOGITS,
        VALUE * 1.0,
    ),
    "exact_loss": (estimators.exact_loss, LOGITS, LOGITS),
    "assignment_score_loss": (
        lambda a, y: estimators.assignment_score_loss(routing.SkipRouter(2)(KEY, a), y, credit=0.5),
        LOGITS,
        VALUE * 1.0,
    ),
    "at_market_prices": (lambda a: estimators.at_market_prices(routing.IndependentRouter()(KEY, a), 2), LOGITS),
    "losses_to_go": (lambda y: estimators.losses_to_go(y, 0.5), VALUE * 1.0),
    "AssignmentELBO": (elbo, KEY, LOGITS),
    "draw_without_replacement": (lambda a: routing.draw_without_replacement(KEY, a, 2, capacity=2), LOGITS),
    "leave_one_out": (estimators.leave_one_out, LOGITS, LOGITS),
    "RunningMean": (lambda a, y: after(estimators.RunningMean(), (), a, y), LOGITS, VALUE * 1.0),
    "LossCritic": (lambda a, y, x: after(CRITIC, (jnp.zeros((3, K)),), a, y, x), LOGITS, VALUE * 1.0, TOKENS),
    "StudentExperts": (
        lambda a, y, x: after(STUDENT, (NETWORK.init(KEY, 3),), a, y, x, lambda outputs: (outputs - y) ** 2),
        LOGITS,
        VALUE * 1.0,
        TOKENS,
    ),
    "shared_network": (lambda x: NETWORK.decode(NETWORK.init(KEY, 3), NETWORK.apply(NETWORK.init(KEY, 3), x)), TOKENS),
}
# Two of many loops, and much like another one.
DEAR = {"outcome_probabilities", "matching_log_prob of five experts"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in PROGRAMS]
# Records, types, a table, and what computes with Python's own numbers.
NOT_COMPILED = {"Matching", "Estimate", "Routing", "ExpertChoiceRouting", "Router", "RouterEntry", "ROUTERS"}
NOT_COMPILED |= {"LearnedState", "Network", "RunningMeanState", "capacity_for", "enumerate_assignments", "make_router"}
NOT_COMPILED |= {"compiled_solver_available"}


def test_every_public_function_is_here():
    rooms = matching, distributions, routing, estimators
    assert {re.split("[. ]", name)[0] for name in PROGRAMS} == {
        name for room in rooms for name in room.__all__
    } - NOT_COMPILED


def traced(function, *args):
    return jax.jit(function).trace(*args)


def foreign_calls(program, *platforms):
    """Custom calls of a traced program, lowered for `platforms`, that none of these brings along."""
    text = program.lower(lowering_platforms=platforms).as_text()
    return {name for name in re.findall(r"custom_call @([\w.$]+)", text) if not re.fullmatch(ALLOWED, name)}


@pytest.mark.parametrize("name", NAMES)
def test_lowers_without_foreign_calls(name):
    assert foreign_calls(traced(*PROGRAMS[name]), "cuda", "tpu") == set()


def test_calls_of_a_cpu_are_foreign():
    program = traced(jnp.linalg.cholesky, jnp.eye(2))
    assert not foreign_calls(program, "cuda", "tpu")
    assert foreign_calls(program, "cpu", "cuda") == {"lapack_spotrf_ffi"}
    if _compiled.AVAILABLE:
        assert foreign_calls(traced(*PROGRAMS["solve_matching"]), "cpu") == {"gumbel_moe_successive_paths_f32"}


def on_devices(name, sharded):
    """A program within `jax.shard_map`, whose default it is to check over which axes values vary; eight devices.

    Each has its own part of the arguments that are `sharded`, and all have the same of the others.
    """
    function, *args = PROGRAMS[name]

    def on_one(*parts):
        return jax.tree.map(lambda x: x[None], function(*(x[0] for x in parts)))

    stacked = [jnp.broadcast_to(x, (8 if shard else 1, *x.shape)) for x, shard in zip(args, sharded, strict=True)]
    specs = tuple(P("batch") if shard else P() for shard in sharded)
    mesh = AbstractMesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    return traced(jax.shard_map(on_one, mesh=mesh, in_specs=specs, out_specs=P("batch")), *stacked)


@pytest.mark.parametrize("name", NAMES)
def test_traces_under_shard_map(name):
    out = on_devices(name, [True] * (len(PROGRAMS[name]) - 1)).out_info
    assert {leaf.shape[0] for leaf in jax.tree.leaves(out)} == {8}


def test_shard_map_refuses_constants_that_a_loop_starts_with():
    def wrong(x):
        return jax.lax.fori_loop(0, 2, lambda _, y: y + x, jnp.zeros(x.shape))

    mesh = AbstractMesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    with pytest.raises(TypeError, match="carry"):
        traced(jax.shard_map(wrong, mesh=mesh, in_specs=P("batch"), out_specs=P("batch")), jnp.ones(8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "alone"), [(name, i) for name, (_, *args) in PROGRAMS.items() for i in range(len(args)) if len(args) > 1]
)
def test_traces_under_shard_map_with_one_argument_sharded(name, alone):
    sharded = [i == alone for i in range(len(PROGRAMS[name]) - 1)]
    on_devices(name, sharded)
