"""The Gibbs update of an assignment site: many cheap steps under a surrogate, then one exact decision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer.util import log_density

from gumbel_moe._checks import check_positive_int
from gumbel_moe._experts import count
from gumbel_moe._varying import vary_like
from gumbel_moe.mcmc._steps import run_steps
from gumbel_moe.mcmc._surrogate import decode, encode, surrogate, unseen_terms
from gumbel_moe.mcmc._without_prior import MaskedSite

GibbsFn = Callable[..., dict[str, Array]]


def swap_and_move(
    model: Callable,
    site: str,
    model_args: tuple = (),
    model_kwargs: dict[str, Any] | None = None,
    *,
    num_steps: int | None = None,
    num_rounds: int | None = None,
) -> GibbsFn:
    r"""A Metropolis update of an assignment site given all others, as the `gibbs_fn` of NumPyro's `HMCGibbs`.

    A round makes `num_steps` swaps of two datapoints, or moves of one to a free place, that leave a surrogate
    $\pi^*(z) \propto \exp(\sum_i T_{i z_i} + \sum_j L_j(n_j))$ invariant, and accepts the outcome $z'$ with probability

    $$\min\left(1, \frac{\pi(z')\, \pi^*(z)}{\pi(z)\, \pi^*(z')}\right),$$

    where $\pi$ is the model's own density (the surrogate transition method): the conditional distribution of the site
    is left invariant exactly, and the model is evaluated once a round. The table $T$ holds each datapoint's terms
    under each expert, read off the model, and with the loads' terms $L$ the prior: for a `SkipAssignment` or a
    `UniformAssignment` exactly, for a `GumbelMatching` at the prices that clear the market, which neglects how a
    determinant varies from one assignment to another.

    A term is read off if its log-density has an axis for the `n` datapoints, a plate of size `n` or the last axis; put
    other observations in a plate of their own. Where a term has none, a sum over all for instance, the surrogate misses
    it, and a long round would be rejected as a whole: the default is then `n` rounds of one step, each of which
    evaluates the model. Where a datapoint's entry depends on other datapoints' experts, that part is missed without
    being noticed: give few steps and many rounds yourself.

    **Arguments:**

    - `model`: the NumPyro model; `model_args`, `model_kwargs`: what it is run with. Give the same to `MCMC.run`.
    - `site`: the name of a [`UniformAssignment`][gumbel_moe.distributions.UniformAssignment],
      [`GumbelMatching`][gumbel_moe.distributions.GumbelMatching] or
      [`SkipAssignment`][gumbel_moe.distributions.SkipAssignment] site with an empty batch shape.
    - `num_steps`: swaps and moves in a round; None means `n`, or 1 if the model has a term that the table misses.
    - `num_rounds`: rounds in an update; None means 1, or `n` if the model has such a term and `num_steps` is None.

    **Returns:** a function of `rng_key`, `gibbs_sites` and `hmc_sites` that returns new values of `gibbs_sites`; it can
    be pickled where the model can.

    **Raises:** `ValueError` when `num_steps` or `num_rounds` is not positive, and, when the sampler starts, for a site
    that the model does not draw, that has a batch shape or a `mask`, and for another latent site without a value, as
    one that NumPyro enumerates; `TypeError` for a site of another distribution.

    Where all assignments are equally probable a priori (without free places, a `UniformAssignment`, or a
    `GumbelMatching` whose logits are the sum of a term of the datapoint and one of the expert), their log-probability,
    a constant, is not computed. With more than three experts the log-probability of a Gumbel-Matching is itself
    estimated, with fixed random numbers: the chain then leaves that estimate invariant, whose error
    `log_prob_with_error` reports.

    ```python
    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC, NUTS, HMCGibbs
    >>> from gumbel_moe.distributions import UniformAssignment
    >>> from gumbel_moe.mcmc import swap_and_move
    >>> y = jnp.array([-2.1, 1.9, -1.9, 2.1])
    >>> def model():
    ...     gap = numpyro.sample("gap", dist.HalfNormal(3.0))
    ...     z = numpyro.sample("z", UniformAssignment(4, capacity=(2, 2)))
    ...     with numpyro.plate("data", 4):
    ...         numpyro.sample("y", dist.Normal(gap * (z - 0.5), 0.5), obs=y)
    >>> kernel = HMCGibbs(NUTS(model), gibbs_fn=swap_and_move(model, "z"), gibbs_sites=["z"])
    >>> mcmc = MCMC(kernel, num_warmup=200, num_samples=200, progress_bar=False)
    >>> mcmc.run(jax.random.key(0))
    >>> jnp.round(mcmc.get_samples()["z"].mean(axis=0)).astype(int).tolist()
    [0, 1, 0, 1]

    ```

    Reference: J. S. Liu, *Monte Carlo Strategies in Scientific Computing* (2001), for surrogate
    transitions; the prices are those of the documentation's page *The probability of a matching*.
    """
    if num_steps is not None:
        check_positive_int("num_steps", num_steps)
    if num_rounds is not None:
        check_positive_int("num_rounds", num_rounds)
    kwargs = {} if model_kwargs is None else dict(model_kwargs)
    return _SwapAndMove(model, site, tuple(model_args), kwargs, num_steps, num_rounds)


@dataclass(frozen=True, eq=False)
class _SwapAndMove:
    """The update as an object, which can be pickled where the model can."""

    model: Callable
    site: str
    model_args: tuple
    model_kwargs: dict[str, Any]
    num_steps: int | None
    num_rounds: int | None

    def __call__(self, rng_key: Array, gibbs_sites: dict[str, Array], hmc_sites: dict[str, Array]) -> dict[str, Array]:
        site = self.site
        if site not in gibbs_sites:
            raise ValueError(f"site {site!r} must be among gibbs_sites, got {sorted(gibbs_sites)}")
        fixed = {name: value for name, value in {**gibbs_sites, **hmc_sites}.items() if name != site}
        start = gibbs_sites[site]
        self._check_complete({**fixed, site: start})
        cheap = surrogate(self._run_model, site, fixed, start)
        k = cheap.capacity.shape[0]
        one_by_one = self.num_steps is None and bool(unseen_terms(self._run_model, site, fixed, start))
        steps = self.num_steps or (1 if one_by_one else start.shape[0])
        rounds = self.num_rounds or (start.shape[0] if one_by_one else 1)

        def log_joint(value: Array) -> Array:
            density = jnp.asarray(log_density(self._run_model, (), {}, {**fixed, site: value})[0])
            return vary_like((cheap, fixed, value), density)

        def log_likelihood(value: Array) -> Array:
            with MaskedSite(site):
                return log_joint(value)

        def excess(code: Array, load: Array) -> Array:
            # A constant prior is left out: for a Gumbel-Matching it may cost more than all the rest.
            exact = jax.lax.cond(cheap.uniform, log_likelihood, log_joint, decode(code, k))
            return exact - cheap.log_density(code, load)

        def one_round(state: tuple, key: Array) -> tuple[tuple, None]:
            steps_key, accept_key = jax.random.split(key)
            proposal = run_steps(steps_key, cheap, state[0], state[1], steps)
            proposed = (*proposal, excess(*proposal))
            accept = jnp.log(jax.random.uniform(accept_key)) < proposed[2] - state[2]
            return jax.tree.map(lambda new, old: jnp.where(accept, new, old), proposed, state), None

        code = encode(start, k)
        load = count(code % k, k)
        first = vary_like((rng_key, cheap, fixed), (code, load, excess(code, load)))
        (code, _, _), _ = jax.lax.scan(one_round, first, jax.random.split(rng_key, rounds))
        return {**gibbs_sites, site: decode(code, k).astype(start.dtype)}

    def _check_complete(self, values: dict[str, Array]) -> None:
        """Raise where a latent site has no value, as one that NumPyro enumerates."""
        names = []

        def run() -> None:
            sites = trace(seed(substitute(self._run_model, data=values), rng_seed=0)).get_trace()
            names.extend(name for name, s in sites.items() if s["type"] == "sample" and not s["is_observed"])

        with block():
            jax.eval_shape(run)
        if missing := sorted(set(names) - set(values)):
            raise ValueError(
                f"swap_and_move needs a value of every other latent site, and has none of {missing}: an enumerated "
                "site must be summed out in the model itself, for instance by a dist.Mixture, or be among gibbs_sites"
            )

    def _run_model(self) -> Any:
        return self.model(*self.model_args, **self.model_kwargs)
