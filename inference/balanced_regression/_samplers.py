"""Posteriors of the wines' models: NUTS where memberships are summed out or left out, HMCGibbs where they are drawn."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.infer import MCMC, NUTS, HMCGibbs

from gumbel_moe.matching import solve_matching
from gumbel_moe.mcmc import swap_and_move, without_prior
from models.balanced_regression import Lines, balanced, labelled_only, log_likelihoods, mixture
from models.data import Wines

Samples = dict[str, Array]
MODELS = ("labelled only", "mixture, shares unknown", "mixture, shares known", "balanced")


def fit(model: str, wines: Wines, start: Samples | None, seed: int, chains: int, draws: int, rounds: int) -> Samples:
    """Draws `(chains, draws, ...)` of every site, and `membership` `(chains, draws, n, k)`, each wine's probabilities.

    Chains begin where `start`, draws of the lines given the labelled wines alone, ended: far apart beside the
    posterior, so that r-hat can tell whether they meet, but all with the groups in the labels' order.
    """
    init = {} if start is None else {name: _unconstrained(name, start[name][:, -1]) for name in Lines._fields}
    if model == "balanced":
        if start is not None:
            init["z"] = jax.vmap(partial(_fullest, wines=wines))(start["membership"][:, -1])
        update = swap_and_move(balanced, "z", (wines,), num_rounds=rounds)
        kernel = HMCGibbs(NUTS(without_prior(balanced, "z")), gibbs_fn=update, gibbs_sites=["z"])
    elif model == "labelled only":
        kernel = NUTS(labelled_only)
    else:
        if init and model == "mixture, shares unknown":
            init["share"] = jnp.zeros((chains, len(wines.sizes) - 1))  # unconstrained, for equal ones
        kernel = NUTS(partial(mixture, known_shares=model == "mixture, shares known"))
    # Gibbs samplers take a callable for chains side by side; NUTS alone has a method of its own.
    side_by_side: Any = jax.vmap if model == "balanced" else "vectorized"
    mcmc = MCMC(
        kernel,
        num_warmup=draws // 2,
        num_samples=draws,
        num_chains=chains,
        chain_method=side_by_side,
        progress_bar=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some donated buffers were not usable")  # of NumPyro under jax.vmap; harmless
        mcmc.run(jax.random.key(seed), wines, init_params=init or None)
    samples = mcmc.get_samples(group_by_chain=True)
    return {**samples, "membership": _membership(samples, wines)}


def _unconstrained(name: str, value: Array) -> Array:
    return jnp.log(value) if name == "noise" else value


def _fullest(membership: Array, wines: Wines) -> Array:
    """The most probable of the assignments that fill the groups."""
    return solve_matching(jnp.log(membership + 1e-30), jnp.asarray(wines.sizes)).assignment


def _membership(samples: Samples, wines: Wines) -> Array:
    """Of each draw: the assignment itself, or the probabilities of independent memberships given the lines."""
    if "z" in samples:
        return jax.nn.one_hot(samples["z"], len(wines.sizes))
    known = jnp.broadcast_to(jnp.asarray(wines.sizes) / len(wines.x), (*samples["noise"].shape[:2], len(wines.sizes)))

    def of_draw(lines: Lines, share: Array) -> Array:
        return jax.nn.softmax(jnp.log(share) + log_likelihoods(lines, wines), axis=1)

    lines = Lines(*(samples[name] for name in Lines._fields))
    return jax.jit(jax.vmap(jax.vmap(of_draw)))(lines, samples.get("share", known))
